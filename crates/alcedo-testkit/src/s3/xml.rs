//! Writing XML: elements with text, escaped. The stores' answers need no more.
//!
//! It knows characters, nothing of stores.

/// Appends `<name>text</name>`.
pub(super) fn element(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A parser normalises bare line ends; a control character is an error in XML 1.0, but stores send it like
            // this.
            control if control < ' ' => out.push_str(&format!("&#{};", u32::from(control))),
            other => out.push(other),
        }
    }
    close(out, name);
}

/// Appends `<name>`.
pub(super) fn open(out: &mut String, name: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

/// Appends `</name>`.
pub(super) fn close(out: &mut String, name: &str) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}
