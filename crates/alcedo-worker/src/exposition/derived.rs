//! Layer 3: what `/metrics` says of derived objects, their builds, and pins.
//!
//! Knows where their numbers are. It must not know the table's form, which is the parent's.

use std::fmt;

use super::{Page, Scrape};
use crate::derived::Kind;

impl Scrape {
    pub(super) fn derived(&self, page: &mut Page<'_>) -> fmt::Result {
        let (derived, builds) = (self.0.lookups.derived(), &self.0.builds);
        let held = Kind::ALL.iter().zip(derived.held()).map(|(kind, (objects, _))| ([kind.name()], objects));
        let held: Vec<_> = held.collect();
        let held: Vec<_> = held.iter().map(|(labels, objects)| (labels.as_slice(), *objects)).collect();
        page.gauges("alcedo_derived_objects", &held)?;
        let counts = derived.counts();
        let events = [
            (&["restored"][..], counts.restored.get()),
            (&["unfinished"], counts.unfinished.get()),
            (&["made"], counts.made.get()),
            (&["broken"], counts.broken.get()),
            (&["cold"], counts.cold.get()),
        ];
        page.counters("alcedo_derived_events", &events)?;
        let keys = [(&["ready"][..], counts.ready_keys.get()), (&["keymap"], counts.keymap_keys.get())];
        page.counters("alcedo_derived_keys", &keys)?;
        let counts = builds.counts();
        page.counter("alcedo_builds_begun", counts.begun.get())?;
        let results = [
            (&["done"][..], counts.done.get()),
            (&["failed"], counts.failed.get()),
            (&["cancelled"], counts.cancelled.get()),
            (&["refused"], counts.refused.get()),
        ];
        page.counters("alcedo_builds", &results)?;
        page.gauge("alcedo_builds_under_way", builds.under_way() as u64)?;
        page.counter("alcedo_builds_yielded", counts.yielded.get())?;
        let (tally, counts) = (self.0.pins.tally(), self.0.pins.counts());
        page.gauge("alcedo_pins", tally.pins)?;
        let states = [(&["pinned"][..], tally.pinned), (&["waiting"], tally.waiting), (&["refused"], tally.refused)];
        page.gauges("alcedo_pinned_things", &states)?;
        page.counter("alcedo_pins_refused", counts.refused.get())?;
        page.counter("alcedo_pins_record_errors", counts.record_errors.get())
    }
}
