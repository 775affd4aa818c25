//! Tests of the line between two hosts.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two sockets with a line between them, and what arrives of so many datagrams.
async fn arrived(noise: Noise, datagrams: u8) -> (Vec<Vec<u8>>, Passed) {
    let (near, far) = (UdpSocket::bind((HERE, 0)).await.unwrap(), UdpSocket::bind((HERE, 0)).await.unwrap());
    let line = Line::open(HERE, HERE, far.local_addr().unwrap(), 7).await.unwrap();
    line.set(noise);
    let mut all = Vec::new();
    let mut buffer = [0; 64];
    for number in 0..datagrams {
        near.send_to(&[number; 32], line.address).await.unwrap();
        // What does not come now comes with the next one, but for the last.
        let wait = if number + 1 < datagrams { Duration::from_millis(5) } else { Duration::from_millis(500) };
        while let Ok(Ok((length, _))) = tokio::time::timeout(wait, far.recv_from(&mut buffer)).await {
            all.push(buffer[..length].to_vec());
        }
    }
    (all, line.passed())
}

#[tokio::test]
async fn a_good_line_passes_everything_and_answers_come_back() {
    let (all, passed) = arrived(Noise::default(), 20).await;
    let sent: Vec<Vec<u8>> = (0..20).map(|number| vec![number; 32]).collect();
    assert_eq!((all, passed), (sent, Passed { datagrams: 20, ..Passed::default() }));

    let (near, far) = (UdpSocket::bind((HERE, 0)).await.unwrap(), UdpSocket::bind((HERE, 0)).await.unwrap());
    let line = Line::open(HERE, HERE, far.local_addr().unwrap(), 7).await.unwrap();
    let mut buffer = [0; 64];
    near.send_to(b"question", line.address).await.unwrap();
    let (_, from) = far.recv_from(&mut buffer).await.unwrap();
    far.send_to(b"answer", from).await.unwrap();
    let (length, _) = near.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"answer");
}

#[tokio::test]
async fn a_cut_line_passes_nothing() {
    let (all, passed) = arrived(Noise { is_cut: true, ..Noise::default() }, 20).await;
    assert_eq!((all.len(), passed.lost), (0, 20));
}

#[tokio::test]
async fn noise_does_what_it_says() {
    let noise =
        Noise { lost: 200, damaged: 300, repeated: 300, delayed: 100, delay_ms: 2, ..Noise::default() };
    let (all, passed) = arrived(noise, 200).await;
    let Passed { datagrams, lost, damaged, repeated, delayed } = passed;
    assert!(lost > 20 && damaged > 20 && repeated > 20 && delayed > 10, "{passed:?}");
    assert_eq!(all.len() as u64, datagrams - lost + repeated);
    let is_damaged = |datagram: &&Vec<u8>| datagram.iter().any(|byte| *byte != datagram[0]);
    assert!(all.iter().filter(is_damaged).count() as u64 >= damaged);
}
