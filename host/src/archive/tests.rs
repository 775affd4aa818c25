//! Tests of the format.

use super::*;
use godwit_core::store::{Row, RowFrame};

fn head() -> ArchiveHead {
    ArchiveHead {
        agent: AgentId::parse("a").unwrap(),
        generation: Generation(1),
        revision: Revision(2),
        token: FencingToken(3),
        store: StoreId([4; 16]),
        exported_at_ms: 5,
    }
}

fn rows(count: u64) -> Record {
    let frame = |change| RowFrame {
        change,
        row: Row::State { key: format!("key {change}"), value: Bytes::from("value") },
    };
    Record::Rows((1..=count).map(frame).collect())
}

fn archive(records: &[Record]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
    records.iter().for_each(|record| writer.push(record).unwrap());
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, ArchiveError> {
    let mut reader = ArchiveReader::new(bytes)?;
    let mut records = vec![Record::Head(reader.head().clone())];
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn small() -> Vec<Record> {
    vec![Record::Head(head()), Record::Component(Bytes::from("part")), rows(2), rows(1)]
}

#[test]
fn what_was_written_is_read() {
    let records = small();
    assert_eq!(read(&archive(&records)).unwrap(), records);
}

#[test]
fn every_flipped_byte_every_cut_and_every_addition_is_noticed() {
    let whole = archive(&small());
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut flipped = whole.clone();
            flipped[at] ^= bit;
            assert!(read(&flipped).is_err(), "byte {at} bit {bit}");
        }
        assert!(read(&whole[..at]).is_err(), "cut at {at}");
    }
    assert!(matches!(read(&[&whole[..], &[0]].concat()), Err(ArchiveError::Damaged { .. })));
}

#[test]
fn records_can_t_be_left_out_repeated_or_moved() {
    let records = small();
    let pieces: Vec<Vec<u8>> = records.iter().map(|record| archive(std::slice::from_ref(record))).collect();
    let whole = archive(&records);
    // The same records, with the end of the whole.
    let body = |order: &[usize]| {
        let mut bytes = whole[..5].to_vec();
        for index in order {
            let end = archive(&[]).len() - 5;
            let piece = &pieces[*index];
            bytes.extend_from_slice(&piece[5..piece.len() - end]);
        }
        bytes
    };
    let end = &whole[body(&[0, 1, 2, 3]).len()..];
    let with = |order: &[usize]| read(&[&body(order)[..], end].concat());
    assert!(with(&[0, 1, 2, 3]).is_ok());
    for order in [&[0, 1, 2][..], &[0, 2, 1, 3], &[0, 1, 2, 3, 3], &[0, 0, 1, 2, 3], &[1, 0, 2, 3]] {
        assert!(with(order).is_err(), "{order:?}");
    }
}

#[test]
fn a_length_is_checked_before_anything_is_read() {
    let mut bytes = archive(&small());
    bytes[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes), Err(ArchiveError::TooLarge { record: 0, .. })));
    assert!(matches!(read(b"GWAR"), Err(ArchiveError::Magic)));
    assert!(matches!(read(b"GWAR\x09"), Err(ArchiveError::Format { found: 9 })));
    assert!(matches!(read(b"SQLite format 3"), Err(ArchiveError::Magic)));
    let large = Record::Component(Bytes::from(vec![0; RECORD_BYTES_MAX + 1]));
    let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
    assert!(matches!(writer.push(&large), Err(ArchiveError::TooLarge { .. })));
}
