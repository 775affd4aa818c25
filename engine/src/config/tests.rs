//! The machine and the engine, as they are set up.

use super::*;

#[test]
fn as_many_guests_as_the_system_has_maps_for() {
    for (resident_max, allowed, is_enough) in [
        (1_000, 65_530, true),
        (15_000, 65_530, true),
        (15_400, 65_530, false),
        (1, 4_000, false),
        (u32::MAX, u64::MAX, true),
    ] {
        let checked = check_map_count_of(resident_max, allowed);
        assert_eq!(checked.is_ok(), is_enough, "{resident_max} guests, {allowed} maps");
    }
}

#[test]
fn too_few_maps_are_refused_with_the_line_that_helps() {
    let error = check_map_count_of(20_000, 65_530).expect_err("80,000 maps are needed");
    assert!(error.to_string().contains("`sysctl -w vm.max_map_count=84096`"), "{error}");
}

/// Core modules of one section each, and whether the engine takes them.
#[test]
fn only_the_plain_parts_of_webassembly_are_on() {
    let engine = wasmtime::Engine::new(&wasmtime_config(8)).expect("wasmtime takes the settings");
    for (what, section, is_taken) in [
        ("a memory", [5, 3, 1, 0, 1].as_slice(), true),
        ("a shared memory", &[5, 4, 1, 3, 1, 1], false),
        ("a 64-bit memory", &[5, 3, 1, 4, 1], false),
        ("two memories", &[5, 5, 2, 0, 1, 0, 1], false),
        ("a function type", &[1, 4, 1, 0x60, 0, 0], true),
        ("a struct type", &[1, 3, 1, 0x5f, 0], false),
        ("an exception tag", &[1, 4, 1, 0x60, 0, 0, 13, 3, 1, 0, 0], false),
    ] {
        let module = [b"\0asm\x01\0\0\0", section].concat();
        let validated = wasmtime::Module::validate(&engine, &module);
        assert_eq!(validated.is_ok(), is_taken, "{what}: {validated:?}");
    }
}
