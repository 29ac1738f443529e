//! The file in memory as a source of pieces, which watches what it is asked for.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use alcedo_lookup::error::Error;
use alcedo_lookup::machine::{Fed, Machine, Need, Piece, Source, drive};
use bytes::Bytes;

use crate::random::Random;

/// Rounds after which a machine is taken to run in circles: a window may be one data page.
const MOST_ROUNDS: usize = 20_000;

/// A file, and chance in whether pieces that may be read along are.
pub(crate) struct Reading {
    file: Bytes,
    state: Mutex<State>,
}

struct State {
    random: Random,
    rounds: usize,
    /// The first thing that was wrong with what was asked for.
    complaint: Option<String>,
}

impl Reading {
    pub(crate) fn new(file: Bytes, seed: u64) -> Self {
        Self { file, state: Mutex::new(State { random: Random::new(seed), rounds: 0, complaint: None }) }
    }

    /// Drives a machine to its end.
    ///
    /// # Errors
    /// The machine's error, or what was wrong with the pieces that it asked for.
    pub(crate) fn drive<M: Machine>(&self, machine: M) -> Result<M::Output, String> {
        self.state.lock().unwrap().rounds = 0;
        let result = block_on(drive(machine, self));
        match self.state.lock().unwrap().complaint.take() {
            Some(complaint) => Err(complaint),
            None => result.map_err(|error| format!("error: {error}")),
        }
    }

    fn piece(&self, piece: &Piece) -> Result<Fed, Error> {
        let file_size = self.file.len() as u64;
        let range = match piece {
            Piece::Tail(length) => file_size.saturating_sub(*length)..file_size,
            Piece::Range(range) => range.clone(),
        };
        if range.start >= range.end || range.end > file_size {
            let complaint = format!("{piece:?} was asked for, the file has {file_size} bytes");
            self.state.lock().unwrap().complaint = Some(complaint.clone());
            return Err(Error::Corrupt(complaint));
        }
        Ok(Fed { start: range.start, file_size, bytes: self.file.slice(range.start as usize..range.end as usize) })
    }
}

impl Source for Reading {
    type Error = Error;

    async fn read(&self, _stage: &'static str, need: &Need) -> Result<Vec<Fed>, Error> {
        let along = {
            let mut state = self.state.lock().unwrap();
            state.rounds += 1;
            if state.rounds > MOST_ROUNDS || need.pieces.is_empty() {
                let complaint = format!("round {} asks for {need:?}", state.rounds);
                state.complaint = Some(complaint.clone());
                return Err(Error::Corrupt(complaint));
            }
            if state.random.percent(50) { &need.along[..] } else { &[] }
        };
        need.pieces.iter().chain(along).map(|piece| self.piece(piece)).collect()
    }
}

/// Everything here is ready at once.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a source that never waits was waited for"),
    }
}
