//! The shape of all that hosts say to each other, down to the last field, beside what is recorded of it.
//!
//! A deserializer that makes values up notes what a type asks it for: a line for each struct with its fields in order, one for
//! each enum with its variants in order, and one for each field with the types that were seen there. In `shapes.txt` a line of a
//! struct or a field stays as it is, and that of an enum grows at its end only: else a host of an older version reads something
//! else than was said.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::super::*;

/// What is said in all versions that hosts speak now.
const RECORDED: &str = include_str!("shapes.txt");
/// One text that every parsed text of a message may be: an id, a name, a trace.
const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// Messages made up of each kind: several for each variant of the largest enum, wherever that stands.
const PASSES: usize = 4_000;
/// How deep a list or an option still has something in it.
const DEPTH_MAX: usize = 24;

/// What was asked for.
#[derive(Default)]
struct Notes {
    /// By place: `Struct`, `Enum`, `Struct.field`, `Enum::Variant.0`.
    shapes: BTreeMap<String, BTreeSet<String>>,
    /// How often each variant was chosen.
    chosen: BTreeMap<String, usize>,
}

impl Notes {
    fn note(&mut self, place: &str, shape: &str) {
        self.shapes.entry(place.to_owned()).or_default().insert(shape.to_owned());
    }

    fn lines(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for (place, shapes) in &self.shapes {
            let shapes: Vec<&str> = shapes.iter().map(String::as_str).collect();
            lines.insert(format!("{place} {}", shapes.join(" | ")));
        }
        lines
    }
}

/// Makes up the value at a place.
struct Maker<'a> {
    notes: &'a RefCell<Notes>,
    place: String,
    depth: usize,
}

impl Maker<'_> {
    fn note(&self, shape: &str) {
        self.notes.borrow_mut().note(&self.place, shape);
    }

    fn inner(&self, place: String) -> Maker<'_> {
        Maker { notes: self.notes, place, depth: self.depth + 1 }
    }

    fn fields<'de, V: Visitor<'de>>(
        &self,
        name: &str,
        fields: &[&str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.notes.borrow_mut().note(name, &format!("{{ {} }}", fields.join(", ")));
        let places = fields.iter().map(|field| format!("{name}.{field}")).collect();
        visitor.visit_seq(Places { maker: self, places, next: 0 })
    }
}

/// One value after the other.
struct Places<'a> {
    maker: &'a Maker<'a>,
    places: Vec<String>,
    next: usize,
}

impl Places<'_> {
    fn made<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(place) = self.places.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(self.maker.inner(place.clone())).map(Some)
    }
}

impl<'de> SeqAccess<'de> for Places<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.made(seed)
    }
}

impl<'de> MapAccess<'de> for Places<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.made(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.made(seed).map(|value| value.expect("a key has its value"))
    }
}

/// A chosen variant.
struct Variant<'a> {
    maker: Maker<'a>,
    index: u32,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let index: U32Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let place = format!("{}.0", self.maker.place);
        seed.deserialize(self.maker.inner(place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let fields: Vec<String> = (0..len).map(|field| field.to_string()).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        self.maker.fields(&self.maker.place, &fields, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.maker.fields(&self.maker.place, fields, visitor)
    }
}

/// A value that is always the same.
macro_rules! plain {
    ($($method:ident $visit:ident $name:literal $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.note($name);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Maker<'_> {
    type Error = Error;

    plain! {
        deserialize_bool visit_bool "bool" true;
        deserialize_i8 visit_i8 "i8" 1;
        deserialize_i16 visit_i16 "i16" 1;
        deserialize_i32 visit_i32 "i32" 1;
        deserialize_i64 visit_i64 "i64" 1;
        deserialize_i128 visit_i128 "i128" 1;
        deserialize_u8 visit_u8 "u8" 1;
        deserialize_u16 visit_u16 "u16" 1;
        deserialize_u32 visit_u32 "u32" 1;
        deserialize_u64 visit_u64 "u64" 1;
        deserialize_u128 visit_u128 "u128" 1;
        deserialize_f32 visit_f32 "f32" 1.0;
        deserialize_f64 visit_f64 "f64" 1.0;
        deserialize_char visit_char "char" 'a';
        deserialize_str visit_borrowed_str "text" TEXT;
        deserialize_string visit_borrowed_str "text" TEXT;
        deserialize_bytes visit_borrowed_bytes "bytes" &[1; 16];
        deserialize_byte_buf visit_borrowed_bytes "bytes" &[1; 16];
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        panic!("{} says what it is only when it is there: postcard can't read that", self.place)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("option");
        match self.depth {
            DEPTH_MAX.. => visitor.visit_none(),
            _ => visitor.visit_some(self.inner(format!("{}?", self.place))),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("()");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(name);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(name);
        visitor.visit_newtype_struct(self.inner(format!("{name}.0")))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("list");
        let places = if self.depth < DEPTH_MAX { vec![format!("{}[]", self.place)] } else { Vec::new() };
        visitor.visit_seq(Places { maker: &self, places, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.note(&format!("tuple of {len}"));
        let places =
            (0..len).map(|item| format!("{}.{}", self.place, if len < 16 { item } else { 0 })).collect();
        visitor.visit_seq(Places { maker: &self, places, next: 0 })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(name);
        let places = (0..len).map(|field| format!("{name}.{field}")).collect();
        visitor.visit_seq(Places { maker: &self, places, next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("map");
        let places = ["key", "value"].map(|part| format!("{}[{part}]", self.place)).into();
        visitor.visit_map(Places { maker: &self, places, next: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(name);
        self.fields(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(name);
        let mut notes = self.notes.borrow_mut();
        notes.note(name, &format!("[ {} ]", variants.join(", ")));
        // Two enums may have one name: their variants are counted apart.
        let key = |index: usize| format!("{} {name}::{}", variants.len(), variants[index]);
        let times = |index: &usize| notes.chosen.get(&key(*index)).copied();
        let index = (0..variants.len()).min_by_key(times).expect("an enum has variants");
        *notes.chosen.entry(key(index)).or_default() += 1;
        drop(notes);
        let maker = self.inner(format!("{name}::{}", variants[index]));
        visitor.visit_enum(Variant { maker, index: u32::try_from(index).expect("enums are small") })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

fn shapes_of<T: DeserializeOwned>(notes: &RefCell<Notes>, name: &str) {
    let mut made = 0;
    for _ in 0..PASSES {
        let maker = Maker { notes, place: name.into(), depth: 0 };
        made += usize::from(T::deserialize(maker).is_ok());
    }
    assert!(made > PASSES / 2, "{made} values of {name} could be made");
}

fn shapes() -> BTreeSet<String> {
    let notes = RefCell::default();
    shapes_of::<PeerRequest>(&notes, "request");
    shapes_of::<PeerAnswer>(&notes, "answer");
    shapes_of::<BulkHeader>(&notes, "bulk header");
    shapes_of::<RowFrame>(&notes, "row");
    notes.into_inner().lines()
}

#[test]
fn all_that_is_said_has_the_shape_that_is_recorded() {
    let (recorded, now) = (RECORDED.lines().map(str::to_owned).collect(), shapes());
    let gone: Vec<_> = BTreeSet::difference(&recorded, &now).cloned().collect();
    let new: Vec<_> = now.difference(&recorded).cloned().collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "hosts of before can't read this. Recorded and gone:\n{}\nnot recorded:\n{}",
        gone.join("\n"),
        new.join("\n")
    );
}

#[test]
fn a_field_in_the_middle_and_another_type_are_seen() {
    mod before {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only its shape counts")]
        pub(super) struct Said {
            first: u8,
            last: Option<String>,
        }
    }
    mod after {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only its shape counts")]
        pub(super) struct Said {
            first: u16,
            between: bool,
            last: Option<String>,
        }
    }
    let lines = |make: fn(&RefCell<Notes>, &str)| {
        let notes = RefCell::default();
        make(&notes, "message");
        notes.into_inner().lines()
    };
    let (before, after) = (lines(shapes_of::<before::Said>), lines(shapes_of::<after::Said>));
    let new: Vec<_> = after.difference(&before).map(String::as_str).collect();
    assert_eq!(new, ["Said { first, between, last }", "Said.between bool", "Said.first u16"]);
}
