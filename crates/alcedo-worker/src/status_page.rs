//! Layer 3: how a worker is, in words.
//!
//! Knows the few numbers that a person asks for first. It must not know who reads them: a service manager, a log or a
//! browser. Nothing here names a path or a key.

use std::fmt::Write as _;

use bytesize::ByteSize;

use crate::service::Door;

/// One line, for `systemctl status`.
pub(crate) fn line(door: &Door) -> String {
    let (metrics, pages) = (&door.metrics, door.lookups.store().pages());
    let ring = door.membership.ring();
    let state = if door.is_ready() { "serving" } else { "draining" };
    let (held, capacity) = (ByteSize(pages.bytes()).display().iec(), ByteSize(pages.capacity_bytes()).display().iec());
    let refused = match door.builds.counts().refused.get() {
        0 => String::new(),
        refused => format!(", {refused} builds refused for want of room (cache.derived)"),
    };
    format!(
        "{state}, ring epoch {:016x} of {} workers, {held} of {capacity} cached, {} lookups, {} failed{refused}",
        ring.epoch(),
        ring.members().len(),
        metrics.lookups_total.get(),
        metrics.lookups_failed.get()
    )
}

/// Several lines, for a log.
pub(crate) fn dump(door: &Door) -> Vec<String> {
    facts(door).into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

/// A page without scripts, styles from elsewhere, or anything to fetch.
pub(crate) fn html(door: &Door) -> String {
    let mut page = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Alcedo worker</title>\n\
        <style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem}\n\
        th{font-weight:600;padding-right:2rem;text-align:left;vertical-align:top}</style></head>\n\
        <body><h1>Alcedo worker</h1><table>\n"
        .to_owned();
    for (name, value) in facts(door) {
        // Writing to a String does not fail.
        let _ = writeln!(page, "<tr><th>{}</th><td>{}</td></tr>", escaped(&name), escaped(&value));
    }
    page + "</table><p><a href=\"/metrics\">metrics</a> <a href=\"/readyz\">ready</a> \
            <a href=\"/healthz\">alive</a></p>\
            </body></html>\n"
}

fn facts(door: &Door) -> Vec<(String, String)> {
    let (metrics, indexes) = (&door.metrics, door.lookups.indexes());
    let mut facts = vec![
        ("worker".to_owned(), door.worker_id.clone()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (
            "up".to_owned(),
            humantime::format_duration(std::time::Duration::from_secs(door.started.elapsed().as_secs())).to_string(),
        ),
        ("state".to_owned(), line(door)),
        ("under way".to_owned(), metrics.lookups_in_flight.get().to_string()),
        ("connections".to_owned(), metrics.connections.get().to_string()),
        ("turned away".to_owned(), (metrics.shed_total.get() + metrics.shed_memory_total.get()).to_string()),
        ("panics".to_owned(), metrics.panics_total.get().to_string()),
        ("hot rows".to_owned(), ByteSize(door.lookups.hot_rows().bytes()).display().iec().to_string()),
        ("file indexes".to_owned(), ByteSize(indexes.bytes()).display().iec().to_string()),
    ];
    facts.push(("derived objects".to_owned(), derived(door)));
    if let Some(refusal) = door.builds.refusal() {
        facts.push(("refused build".to_owned(), refusal));
    }
    for member in door.membership.ring().members().iter() {
        facts.push((format!("member {}", member.id()), member.address().to_owned()));
    }
    for mount in door.lookups.mounts().iter() {
        let counts = mount.counts();
        let asked =
            format!("{} GETs, {} errors, {}", counts.gets, counts.errors, ByteSize(counts.bytes).display().iec());
        facts.push((format!("mount {}", mount.name()), asked));
    }
    facts
}

/// What was made of files, and how making it goes.
fn derived(door: &Door) -> String {
    let (derived, counts) = (door.lookups.derived(), door.builds.counts());
    let [(keymaps, _), (ready, _)] = derived.held();
    let of = |store: &alcedo_cache::PageStore| {
        format!("{} of {}", ByteSize(store.bytes()).display().iec(), ByteSize(store.capacity_bytes()).display().iec())
    };
    format!(
        "{keymaps} keymaps, {ready} lookup-ready, {} held, {} pinned; builds: {} done, {} under way, {} failed, \
         {} cancelled, {} refused for want of room",
        of(derived.pages()),
        of(derived.pinned()),
        counts.done.get(),
        door.builds.under_way(),
        counts.failed.get(),
        counts.cancelled.get(),
        counts.refused.get()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_and_no_markup() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
