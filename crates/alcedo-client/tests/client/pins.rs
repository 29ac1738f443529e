//! Pins as the client reads them: things, outcomes, and pins that go on in the next message.

use alcedo_client::{Kind, PinState, PinThing, Unpinned};

use crate::scripted::Server;

#[tokio::test]
async fn things_go_there_and_come_back() {
    let server = Server::start();
    let (name, key) = (|| "a.b".to_owned(), || Some("id".to_owned()));
    let things = [
        PinThing::Footer,
        PinThing::Index,
        PinThing::Bloom,
        PinThing::Column(name()),
        PinThing::Keymap(None),
        PinThing::Keymap(key()),
        PinThing::Rows(None),
        PinThing::Rows(key()),
    ];
    let answers = server.client().pin("lake/a", &things).await.unwrap();
    let entries = answers[0].1.as_ref().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.thing.clone()).collect::<Vec<_>>(), things);
    assert!(entries.iter().all(|entry| entry.state == PinState::Pinned && entry.url == "s3://lake/a"));
    let ended = server.client().unpin("lake/a").await.unwrap();
    assert_eq!(*ended[0].1.as_ref().unwrap(), Unpinned { pins: 1, files: 2, freed_bytes: 13 });
}

#[tokio::test]
async fn a_pin_that_goes_on_in_the_next_message_is_one() {
    let server = Server::start();
    let answers = server.client().pins(None).await.unwrap();
    let pins = answers[0].1.as_ref().unwrap();
    assert_eq!((pins.held_bytes, pins.capacity_bytes), (5, 7));
    let found: Vec<_> = pins.pins.iter().map(|pin| (pin.url.as_str(), pin.entries.len())).collect();
    assert_eq!(found, [("s3://lake/a", 0), ("s3://lake/b", 2), ("s3://lake/c", 0)]);
    assert_eq!(pins.pins[1].entries[1].state, PinState::Refused);
    let newer = server.client().pins(Some("lake/newer")).await.unwrap();
    let error = newer[0].1.as_ref().unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss);
    assert!(error.to_string().contains("does not know"), "{error}");
}
