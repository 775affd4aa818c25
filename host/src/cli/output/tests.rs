//! Tests of how values look.

use super::*;

#[test]
fn times_are_utc_dates() {
    let cases = [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (1_767_225_600_001, "2026-01-01T00:00:00.001Z"),
        (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
    ];
    for (unix_ms, text) in cases {
        assert_eq!(time(unix_ms), text);
    }
}

#[test]
fn sizes_have_a_unit() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_572_864, "1.5 MiB"),
        (64 << 20, "64.0 MiB"),
        (1 << 40, "1.0 TiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(size(bytes), text);
    }
}

#[test]
fn cells_are_short_and_never_empty() {
    let item = json!({
        "id": "a-1", "key": "0123456789abcdef", "at_ms": 0, "size": 2048, "none": null,
        "list": ["x", "y"], "object": {"b": "1", "a": "2"}, "empty": "", "number": 7, "yes": true,
    });
    let cases = [
        (Column::text("T", "/id"), "a-1"),
        (Column::short("T", "/key"), "0123456789ab"),
        (Column::time("T", "/at_ms"), "1970-01-01T00:00:00.000Z"),
        (Column::size("T", "/size"), "2.0 KiB"),
        (Column::text("T", "/none"), "-"),
        (Column::text("T", "/missing/deeper"), "-"),
        (Column::text("T", "/list"), "x, y"),
        (Column::text("T", "/object"), "a=2 b=1"),
        (Column::text("T", "/empty"), "-"),
        (Column::text("T", "/number"), "7"),
        (Column::text("T", "/yes"), "true"),
    ];
    for (column, text) in cases {
        assert_eq!(column.cell(&item), text, "{}", column.pointer);
    }
}

#[test]
fn members_are_flattened() {
    let mut rows = Vec::new();
    flatten("", &json!({"a": {"b": 1, "c": {}}, "created_at_ms": 0}), &mut rows);
    let expected = [("a.b", "1"), ("a.c", "-"), ("created_at", "1970-01-01T00:00:00.000Z")];
    assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}
