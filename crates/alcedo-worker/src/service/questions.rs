//! Layer 3: questions as the wire asks them.
//!
//! Knows what a request means beside its keys, and the handles that a client defines for that on one stream. It must
//! not know how a question is answered. What is wrong with a question is kept in its place: it is the failure of each
//! lookup that uses it.

use std::sync::Arc;

use alcedo_lookup::answer::Form;
use alcedo_proto::v1::{self, AnswerForm};

use super::convert;
use crate::error::Error;
use crate::lookups::Lookups;
use crate::prepared::{Ask, Asked};

/// Handles that a client may define on one stream (`lookup.proto`, message `Prepare`).
const MAX_HANDLES: u32 = 1_024;
/// Bytes of all questions that one stream keeps: thousands of usual ones, while any client can afford a stream more.
const MAX_BYTES: usize = 4 << 20;

/// All of a request but its keys and its time.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// What is asked, or why it cannot be.
    pub(super) asked: Result<Arc<Asked>, Error>,
    /// The answer's form on the wire.
    pub(super) form: AnswerForm,
    pub(super) is_traced: bool,
    pub(super) accepts_parts: bool,
    /// Data pages may take the place of the compact rows that are asked for.
    pub(super) accepts_pages: bool,
}

impl Question {
    /// The question of a request, whose keys are left in it.
    pub(super) fn new(request: &mut v1::LookupRequest, default: AnswerForm, lookups: &Lookups) -> Self {
        let (ask, form) = ask(request, default);
        let (is_traced, accepts_parts) = (request.trace, request.accept_parts);
        let accepts_pages = request.accept_pages && form == AnswerForm::CompactRows;
        Self { asked: lookups.asked(ask), form, is_traced, accepts_parts, accepts_pages }
    }

    /// The question, where its answer may come at once in this form.
    pub(super) fn at_once(&self, form: AnswerForm) -> Option<&Arc<Asked>> {
        if self.is_traced || self.form != form { None } else { self.asked.as_ref().ok() }
    }
}

/// What a request asks, and the form of the answer on the wire.
fn ask(request: &mut v1::LookupRequest, default: AnswerForm) -> (Ask, AnswerForm) {
    // What this version does not know is treated as if it were not said.
    let asked = AnswerForm::try_from(request.form).unwrap_or_default();
    let wire_form = if asked == AnswerForm::Unspecified { default } else { asked };
    let form = match wire_form {
        AnswerForm::Unspecified | AnswerForm::CompactRows | AnswerForm::TypedValues => Form::CompactRows,
        AnswerForm::ArrowIpc => Form::ArrowIpc,
        AnswerForm::Pages => Form::Pages,
    };
    let ask = Ask {
        path: std::mem::take(&mut request.path),
        key_column: Some(std::mem::take(&mut request.key_column)).filter(|name| !name.is_empty()),
        columns: Some(std::mem::take(&mut request.columns)).filter(|names| !names.is_empty()),
        form,
        row_limit: Some(request.row_limit).filter(|limit| *limit > 0),
    };
    (ask, wire_form)
}

/// The handles of one stream.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By handle, from 1 on.
    defined: Vec<Option<Arc<Question>>>,
    bytes: usize,
}

impl Questions {
    /// Defines a handle, or defines it anew.
    pub(super) fn define(&mut self, prepare: v1::Prepare, default: AnswerForm, lookups: &Lookups) {
        let handle = prepare.handle;
        if !(1..=MAX_HANDLES).contains(&handle) {
            // Whoever uses it is told.
            return;
        }
        let mut request = prepare.request.unwrap_or_default();
        let mut question = Question::new(&mut request, default, lookups);
        let at = handle as usize - 1;
        if self.defined.len() <= at {
            self.defined.resize(at + 1, None);
        }
        let before = self.defined[at].take();
        self.bytes -= before.map_or(0, |question| bytes(&question));
        if self.bytes + bytes(&question) > MAX_BYTES {
            let why = format!(
                "the handles of this stream name more than {MAX_BYTES} bytes of paths and columns: \
                 ask without a handle, or on another stream"
            );
            question.asked = Err(Error::BadRequest(why));
        }
        self.bytes += bytes(&question);
        self.defined[at] = Some(Arc::new(question));
    }

    /// The question of a handle.
    pub(super) fn get(&self, handle: u32) -> Result<Arc<Question>, Error> {
        let defined = (handle as usize).checked_sub(1).and_then(|at| self.defined.get(at)?.clone());
        defined.ok_or_else(|| match (1..=MAX_HANDLES).contains(&handle) {
            true => {
                Error::BadRequest(format!("the handle {handle} was not defined on this stream: send a Prepare first"))
            }
            false => Error::BadRequest(format!("{handle} cannot be a handle: 1 to {MAX_HANDLES} can")),
        })
    }
}

fn bytes(question: &Question) -> usize {
    question.asked.as_ref().map_or(0, |asked| asked.ask.text_bytes())
}

/// The keys of a request.
pub(super) fn keys(keys: Vec<v1::Key>) -> Result<Vec<alcedo_lookup::key::Key>, Error> {
    keys.into_iter().enumerate().map(|(index, key)| convert::key(index, key)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn empty_means_default_and_unknown_forms_too() {
        let request = || v1::LookupRequest { path: "lake/a".to_owned(), ..v1::LookupRequest::default() };
        let (asked, form) = ask(&mut v1::LookupRequest { form: 99, ..request() }, AnswerForm::TypedValues);
        assert_eq!((form, asked.form), (AnswerForm::TypedValues, Form::CompactRows));
        assert_eq!((asked.key_column, asked.columns, asked.row_limit), (None, None, None));
        let mut pages = v1::LookupRequest { form: AnswerForm::Pages.into(), row_limit: 3, ..request() };
        let (asked, form) = ask(&mut pages, AnswerForm::CompactRows);
        assert_eq!((form, asked.form, asked.row_limit), (AnswerForm::Pages, Form::Pages, Some(3)));
    }

    #[test]
    fn a_key_without_a_value_is_named() {
        let key = |kind| v1::Key { kind };
        let one = || key(Some(v1::key::Kind::Int(1)));
        let refused = |bad| keys(vec![one(), bad]).unwrap_err().to_string();
        assert_eq!(refused(key(Some(v1::key::Kind::Null(false)))), "key 1: null must be true");
        assert!(refused(key(None)).starts_with("key 1: it has no value"));
    }
}
