//! Makes inputs of other inputs.

/// Bytes of an input at most: more is slow and finds no more.
pub const INPUT_BYTES_MAX: usize = 32 << 10;

/// Numbers that lengths and counters go wrong at, as they are written on the wire.
const NUMBERS: [&[u8]; 10] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80, 0],
    &[0x80, 0x80, 0x40],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0, 0, 0, 0x80],
];
/// Texts that mean something to what reads text.
const TEXTS: [&[u8]; 8] = [
    b"gdwm",
    b"GWSN",
    b"name = \"a\"\n",
    b"grants = [",
    b"[limits]\n",
    b"\xf0\x9f\xa6\x86",
    b"\xff",
    b"\"\"\"",
];

/// Random numbers of a seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % (bound.max(1) as u64)) as usize
    }
}

/// Changes an input in one to eight ways; `other` is one to take pieces of.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        once(input, other, random);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn once(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = 1 + random.below(16);
    let end = (at + length).min(input.len());
    match random.below(11) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.number() as u8;
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(if random.below(2) == 0 { 1 } else { 0xff });
            }
        }
        3 => drop(input.drain(at..end)),
        4 => {
            let piece: Vec<u8> = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let number = NUMBERS[random.below(NUMBERS.len())];
            let replaced = if random.below(2) == 0 { at..end.min(at + 1) } else { at..at };
            input.splice(replaced, number.iter().copied());
        }
        6 => {
            let text = TEXTS[random.below(TEXTS.len())];
            input.splice(at..at, text.iter().copied());
        }
        7 => input.truncate(at),
        8 => {
            let from = random.below(other.len() + 1);
            let piece = &other[from..(from + 1 + random.below(256)).min(other.len())];
            input.splice(at..end, piece.iter().copied());
        }
        9 => {
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let to = random.below(input.len() + 1);
            let piece: Vec<u8> = input.drain(at..end).collect();
            let to = to.min(input.len());
            input.splice(to..to, piece);
        }
    }
}
