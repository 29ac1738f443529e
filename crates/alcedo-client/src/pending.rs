//! The unanswered messages of one stream: who waits for which id, and what has come of each answer.
//!
//! Knows ids, wakers and replies. It must not know frames or sockets. A place is used again and again, and its turn is
//! part of the id: a late reply to a message that was given up finds nobody.

use std::task::{Context, Poll, Waker};

use alcedo_proto::v1 as pb;

use crate::batch::Share;
use crate::ending::End;
use crate::parts::{Broken, Parts};

/// Most unanswered messages on one stream; further calls wait for a place within their deadline. Four times the
/// outstanding work at which a stream reaches its best rate, with room for slow origins.
pub(crate) const MAX_PENDING: usize = 1 << PLACE_BITS;
/// Bits of an id that name the place.
const PLACE_BITS: u32 = 10;

/// What came of a message.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(pb::Answer, Option<Box<Parts>>),
    /// The message's part of an answer to several.
    Share(Share),
    /// A part of the answer makes the rest useless.
    Broken(Broken),
    Failure(pb::Failure),
    /// The reply cannot be read, for this reason.
    Unreadable(String),
    /// A reply of a kind that this client does not know.
    Unknown,
    /// The stream ended before it was answered.
    Ended(End),
    /// The stream ended before it was sent.
    Unsent(End),
}

/// All places.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Set when the stream has ended; nothing can be added then.
    end: Option<End>,
}

#[derive(Debug)]
struct Place {
    /// How often it was used.
    turn: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting { waker: Option<Waker>, parts: Option<Box<Parts>> },
    Over(Reply),
}

impl Pending {
    /// A place and its id. Ids are never 0, and one comes again after four billion others in the same place.
    ///
    /// # Errors
    /// The stream has ended.
    pub(crate) fn add(&mut self) -> Result<u64, End> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let number = self.free.pop().unwrap_or(self.places.len());
        if number == self.places.len() {
            self.places.push(Place { turn: 0, state: State::Free });
        }
        let Some(place) = self.places.get_mut(number) else { return Ok(0) };
        place.turn = place.turn.wrapping_add(1).max(1);
        place.state = State::Waiting { waker: None, parts: None };
        Ok(u64::from(place.turn) << PLACE_BITS | number as u64)
    }

    fn place(&mut self, id: u64) -> Option<(usize, &mut Place)> {
        let number = (id & (MAX_PENDING as u64 - 1)) as usize;
        let place = self.places.get_mut(number)?;
        (u64::from(place.turn) == id >> PLACE_BITS).then_some((number, place))
    }

    /// The reply, once it is there; it is given out once.
    pub(crate) fn poll(&mut self, id: u64, cx: &Context<'_>) -> Poll<Reply> {
        let Some((number, place)) = self.place(id) else { return Poll::Ready(Reply::Unknown) };
        match &mut place.state {
            State::Waiting { waker, .. } => {
                match waker {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    waker => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            state => {
                let State::Over(reply) = std::mem::replace(state, State::Free) else {
                    return Poll::Ready(Reply::Unknown);
                };
                self.free.push(number);
                Poll::Ready(reply)
            }
        }
    }

    /// Takes a reply, and gives the one to wake. A message that was given up has nobody.
    pub(crate) fn settle(&mut self, id: u64, mut reply: Reply) -> Option<Waker> {
        let (_, place) = self.place(id)?;
        let State::Waiting { waker, parts } = &mut place.state else { return None };
        if let Reply::Answer(_, gathered) = &mut reply {
            *gathered = parts.take();
        }
        let waker = waker.take();
        place.state = State::Over(reply);
        waker
    }

    /// Keeps a part until its answer ends. Who asked puts the parts together: the one task that reads the stream has
    /// no time for that.
    pub(crate) fn gather(&mut self, id: u64, part: pb::AnswerPart) -> Option<Waker> {
        let (_, place) = self.place(id)?;
        let State::Waiting { parts, .. } = &mut place.state else { return None };
        let broken = parts.get_or_insert_default().add(part).err()?;
        self.settle(id, Reply::Broken(broken))
    }

    /// Takes a message back; whether it was still unanswered.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let Some((number, place)) = self.place(id) else { return false };
        match std::mem::replace(&mut place.state, State::Free) {
            State::Free => false,
            state => {
                self.free.push(number);
                matches!(state, State::Waiting { .. })
            }
        }
    }

    /// Ends all messages; `unsent` never left this side. Gives those to wake.
    pub(crate) fn end(&mut self, end: &End, unsent: &[u64]) -> Vec<Waker> {
        self.end = Some(end.clone());
        let unsent: Vec<_> = unsent.iter().filter_map(|id| self.settle(*id, Reply::Unsent(end.clone()))).collect();
        let mut wakers = unsent;
        for place in &mut self.places {
            if let State::Waiting { waker, .. } = &mut place.state {
                wakers.extend(waker.take());
                place.state = State::Over(Reply::Ended(end.clone()));
            }
        }
        wakers
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn poll(pending: &mut Pending, id: u64) -> Poll<Reply> {
        pending.poll(id, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_late_reply_finds_nobody_in_the_place_that_it_was_meant_for() {
        let mut pending = Pending::default();
        let first = pending.add().unwrap();
        assert!(pending.remove(first) && !pending.remove(first));
        let second = pending.add().unwrap();
        assert_eq!(first & 1_023, second & 1_023);
        pending.settle(first, Reply::Unreadable("late".to_owned()));
        assert!(poll(&mut pending, second).is_pending());
        pending.settle(second, Reply::Failure(pb::Failure::default()));
        assert!(matches!(poll(&mut pending, second), Poll::Ready(Reply::Failure(_))));
        // It was answered, so there is nothing to cancel.
        assert!(!pending.remove(second));
    }

    #[test]
    fn ids_of_all_places_differ_and_none_is_zero() {
        let mut pending = Pending::default();
        let ids: std::collections::HashSet<u64> = (0..MAX_PENDING).map(|_| pending.add().unwrap()).collect();
        assert!(ids.len() == MAX_PENDING && !ids.contains(&0));
        ids.iter().for_each(|id| assert!(pending.remove(*id)));
        let again: std::collections::HashSet<u64> = (0..MAX_PENDING).map(|_| pending.add().unwrap()).collect();
        assert!(again.is_disjoint(&ids));
    }

    #[test]
    fn the_end_tells_what_was_sent_from_what_was_not() {
        let mut pending = Pending::default();
        let (sent, unsent, answered) = (pending.add().unwrap(), pending.add().unwrap(), pending.add().unwrap());
        pending.settle(answered, Reply::Failure(pb::Failure::default()));
        pending.end(&End::Broken("cut".to_owned()), &[unsent]);
        assert!(matches!(poll(&mut pending, sent), Poll::Ready(Reply::Ended(End::Broken(_)))));
        assert!(matches!(poll(&mut pending, unsent), Poll::Ready(Reply::Unsent(End::Broken(_)))));
        assert!(matches!(poll(&mut pending, answered), Poll::Ready(Reply::Failure(_))));
        assert!(pending.add().is_err());
    }
}
