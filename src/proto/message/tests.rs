use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn simple() -> SimpleMessage {
    SimpleMessage {
        header: Header {
            durable: true,
            ttl_ms: Some(60_000),
            ..Header::default()
        },
        message_id: Some(String::from("ID:1")),
        to: Some(String::from("orders")),
        properties: vec![
            (String::from("sender"), PropertyValue::Long(7)),
            (String::from("note"), PropertyValue::Text("x".repeat(300))),
        ],
        body: vec![9; 700],
    }
}

#[test]
fn a_simple_message_reads_back_as_written() {
    let message = simple();
    assert_eq!(SimpleMessage::decode(&message.encode()).unwrap(), message);
    let bare = SimpleMessage {
        body: b"b".to_vec(),
        ..SimpleMessage::default()
    };
    assert_eq!(SimpleMessage::decode(&bare.encode()).unwrap(), bare);
    assert_eq!(message.long("sender"), Some(7));
    assert_eq!(message.text("note").map(str::len), Some(300));
    assert_eq!(message.long("note"), None);
}

#[test]
fn the_index_names_what_the_broker_needs() {
    let encoded = simple().encode();
    let index = MessageIndex::scan(&encoded).unwrap();
    assert!(index.durable && index.has_header && !index.has_delivery_annotations);
    assert_eq!(index.ttl_ms, Some(60_000));
    assert_eq!(index.to_text(&encoded), Some("orders"));
    assert_eq!(index.message_id_text(&encoded), Some("ID:1"));
    assert_eq!(
        &encoded[index.bare_offset..index.bare_offset + 3],
        &[0, 0x53, 0x73]
    );
    assert_eq!(
        &encoded[index.body_offset..index.body_offset + 3],
        &[0, 0x53, 0x75]
    );
}

/// A message of Qpid JMS as traced: header with ttl, annotations, ten properties, data.
pub(super) const QPID: &[u8] = b"\x00Sp\xc0\x09\x03AP\x07p\x00\x00\xea`\x00Sr\xc1)\x04\xa3\x0ex-opt-jms-destQ\x00\xa3\x12x-opt-jms-msg-typeQ\x03\x00Ss\xd0\x00\x00\x00s\x00\x00\x00\x0b\xa1/ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:1-1@\xa1\x02q1@@\xa1\x04corr\xa3\x18application/octet-stream@\x83\x00\x00\x01\xa2\x020\xcbX\x83\x00\x00\x01\xa2\x02/\xe0\xf8\xa1\x02g1\x00St\xc1\x1f\x04\xa1\x06region\xa1\x02eu\xa1\x0c_AMQ_DUPL_ID\xa1\x02d1\x00Su\xa0\x05hello";

#[test]
fn a_message_of_qpid_jms_is_indexed() {
    let index = MessageIndex::scan(QPID).unwrap();
    assert!(index.durable);
    assert_eq!(index.priority, 7);
    assert_eq!(index.ttl_ms, Some(60_000));
    assert_eq!(index.to_text(QPID), Some("q1"));
    assert_eq!(
        index.message_id_text(QPID),
        Some("ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:1-1")
    );
    assert_eq!(
        index.group_id.map(|range| &QPID[range]),
        Some(b"g1".as_slice())
    );
    assert_eq!(index.absolute_expiry_ms, Some(0x0000_01a2_0230_cb58));
    let annotations = &QPID[index.message_annotations.unwrap()];
    assert_eq!((annotations[0], annotations.len()), (0xc1, 43));
    assert_eq!(SimpleMessage::decode(QPID).unwrap().body, b"hello");
    assert_eq!(
        SimpleMessage::decode(QPID).unwrap().text("region"),
        Some("eu")
    );
}

#[test]
fn an_absent_header_means_the_defaults() {
    let index = MessageIndex::scan(&[0, 0x53, 0x77, 0x40]).unwrap();
    assert_eq!(index.header(), Header::default());
    assert_eq!(
        (index.has_header, index.bare_offset, index.body_offset),
        (false, 0, 0)
    );
}

#[test]
fn a_new_header_replaces_the_old_and_the_rest_stays() {
    let header = Header {
        durable: true,
        priority: 255,
        ttl_ms: Some(u32::MAX),
        first_acquirer: true,
        delivery_count: u32::MAX,
    };
    let index = MessageIndex::scan(QPID).unwrap();
    let again = [&header.encode()[..], &QPID[index.bare_offset..]].concat();
    let changed = MessageIndex::scan(&again).unwrap();
    assert_eq!(changed.header(), header);
    assert_eq!(&again[changed.bare_offset..], &QPID[index.bare_offset..]);
}

#[test]
fn delivery_annotations_are_not_forwarded() {
    let message = [&[0, 0x53, 0x71, 0xc1, 1, 0][..], &[0, 0x53, 0x77, 0x40]].concat();
    let index = MessageIndex::scan(&message).unwrap();
    assert!(index.has_delivery_annotations);
    assert_eq!(index.bare_offset, 6);
}

#[test]
fn sections_may_span_frames_at_any_byte() {
    let whole = MessageIndex::scan(QPID).unwrap();
    for cut in 1..QPID.len() {
        let mut payload = Payload::default();
        payload.push(Bytes::copy_from_slice(&QPID[..cut]));
        payload.push(Bytes::copy_from_slice(&QPID[cut..]));
        assert_eq!(
            MessageIndex::scan_payload(&payload).unwrap(),
            whole,
            "cut at {cut}"
        );
    }
    let mut bytewise = Payload::default();
    for byte in QPID {
        bytewise.push(Bytes::copy_from_slice(&[*byte]));
    }
    assert_eq!(MessageIndex::scan_payload(&bytewise).unwrap(), whole);
}

#[test]
fn what_is_not_a_message_is_refused() {
    for (bytes, what) in [
        (&b""[..], "nothing"),
        (b"hello", "text"),
        (
            &[0, 0x53, 0x73, 0x45, 0, 0x53, 0x70, 0x45],
            "a header behind the properties",
        ),
        (&[0, 0x53, 0x70, 0x45, 0, 0x53, 0x70, 0x45], "two headers"),
        (&[0, 0x53, 0x24, 0x45], "an outcome"),
        (
            &[0, 0x53, 0x70, 0xc0, 200, 1, 0x41],
            "a header that is cut off",
        ),
        (
            &[0, 0x53, 0x70, 0xc0, 2, 1, 0x43],
            "a number where a boolean belongs",
        ),
    ] {
        assert!(MessageIndex::scan(bytes).is_err(), "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_indexed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = MessageIndex::scan(&bytes);
        let _ = SimpleMessage::decode(&bytes);
    }

    #[test]
    fn a_damaged_message_never_points_outside(at in 0..QPID.len(), byte in any::<u8>(), end in 0..QPID.len()) {
        let mut message = QPID.to_vec();
        message[at] = byte;
        message.truncate(end);
        let _ = SimpleMessage::decode(&message);
        if let Ok(index) = MessageIndex::scan(&message) {
            for range in [index.message_id, index.to, index.group_id, index.message_annotations, index.application_properties].into_iter().flatten() {
                prop_assert!(message.get(range).is_some());
            }
            prop_assert!(index.bare_offset <= index.body_offset && index.body_offset <= message.len());
        }
    }
}
