//! Layer 3: many lookups of one key each in one frame.
//!
//! Knows which of them can be answered at once, together, and that each of the others is a lookup like any other. It
//! must not know how either is done.

use std::collections::VecDeque;

use alcedo_lookup::key::Key;
use alcedo_proto::v1::{self, AnswerForm, reply_frame};

use super::convert;
use super::questions::Question;
use super::stream::{Frames, Work};
use super::unread::failed;
use crate::error::Error;
use crate::lookups::Lookups;

impl<F: Frames> Work<F> {
    /// Lookups of one key each: those that need no wait are answered together, each of the others by itself.
    pub(super) fn begin_batch(&mut self, id: u64, batch: v1::PreparedBatch) -> Option<v1::ReplyFrame> {
        let v1::PreparedBatch { handle, ids, keys, timeout_us } = batch;
        let question = self.questions.get(handle);
        if ids.is_empty() || ids.len() != keys.len() || ids.len() > self.door.lookups.max_keys() {
            let why = format!("a batch of {} ids and {} keys: as many of both, at least one", ids.len(), keys.len());
            let ids = if ids.is_empty() { vec![id] } else { ids };
            ids.into_iter().for_each(|id| self.unread.push(failed(id, &Error::BadRequest(why.clone()))));
            return None;
        }
        let question = match question {
            Ok(question) => question,
            Err(error) => {
                ids.into_iter().for_each(|id| {
                    let refused = self.refuse_lookup(id, &error);
                    refused.into_iter().for_each(|reply| self.unread.push(reply));
                });
                return None;
            }
        };
        let mut asked = Vec::with_capacity(ids.len());
        for (id, key) in ids.into_iter().zip(keys) {
            match self.check_id(id) {
                Some(refused) => self.unread.push(refused),
                None => asked.push((id, convert::key(0, key))),
            }
        }
        let reply = self.answer_some_at_once(&question, &mut asked);
        for (id, key) in asked {
            // Two of one batch may have the same id.
            match self.check_id(id) {
                Some(refused) => self.unread.push(refused),
                None => {
                    let refused = self.begin_work(id, Question::clone(&question), key.map(|key| vec![key]), timeout_us);
                    refused.into_iter().for_each(|reply| self.unread.push(reply));
                }
            }
        }
        reply
    }

    /// Answers those of a batch that need no wait, and takes them out of it.
    fn answer_some_at_once(
        &mut self,
        question: &Question,
        batch: &mut Vec<(u64, Result<Key, Error>)>,
    ) -> Option<v1::ReplyFrame> {
        let asked = question.at_once(AnswerForm::CompactRows)?;
        let keys = batch.iter().map(|(_, key)| key.as_ref().ok().cloned()).collect::<Option<Vec<_>>>()?;
        let (mut is_answered, mut from, mut replies) = (vec![false; keys.len()], 0, VecDeque::new());
        while let Some(rest) = keys.get(from..).filter(|rest| !rest.is_empty()) {
            let some = |lookups: &Lookups, now| lookups.answer_some_at_once(asked, rest, now);
            // A panic is the failure of each of them where they are looked up one by one.
            let Some(Ok((answer, answered))) = self.door.at_once(asked, some) else { break };
            let ids = answered.keys.iter().map(|key| batch[from + *key as usize].0).collect();
            answered.keys.iter().for_each(|key| is_answered[from + *key as usize] = true);
            let count = answered.keys.len() as u64;
            self.hot_lookups += count;
            self.hot_keys += count.saturating_sub(answer.read_keys as u64);
            let answer = Some(self.answered_at_once(answer));
            let body = Some(reply_frame::Body::Batch(v1::BatchAnswer { ids, answer }));
            replies.extend(self.say(v1::ReplyFrame { id: 0, body }));
            from += answered.tried.max(1);
        }
        let mut is_answered = is_answered.into_iter();
        batch.retain(|_| is_answered.next() == Some(false));
        // One that may be handed out at once is, and several wait for their turn like any other.
        if replies.len() == 1 && self.unread.is_empty() {
            return replies.pop_front();
        }
        replies.into_iter().for_each(|reply| self.unread.push(reply));
        None
    }
}
