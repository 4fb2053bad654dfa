//! A flow as a ladder of text: one column for each end, one arrow for each message.
//!
//! Reads the JSON of the API, so that the same picture is drawn from memory, from disk and over HTTP.

use std::fmt::Write;

/// Width of one column.
const COLUMN: usize = 26;
/// Most columns; further ends share the last.
pub(super) const COLUMNS: usize = 12;

/// One message as drawings need it.
pub(super) struct Step<'a> {
    pub time: &'a str,
    pub from: usize,
    pub to: usize,
    pub label: String,
}

/// The ends in order of appearance and the steps between them.
pub(super) fn steps(flow: &serde_json::Value) -> (Vec<&str>, Vec<Step<'_>>) {
    let mut ends: Vec<&str> = Vec::new();
    let mut steps = Vec::new();
    let messages = flow["messages"].as_array().map_or(&[][..], Vec::as_slice);
    for message in messages {
        let mut column = |name: &'static str| {
            let end = message[name].as_str().unwrap_or("?");
            ends.iter().position(|known| *known == end).unwrap_or_else(|| {
                if ends.len() < COLUMNS {
                    ends.push(end);
                }
                ends.len() - 1
            })
        };
        let (from, to) = (column("from"), column("to"));
        steps.push(Step {
            time: message["time"].as_str().unwrap_or_default(),
            from,
            to,
            label: label(message),
        });
    }
    (ends, steps)
}

/// What stands on the arrow: method or status, CSeq's method, recipient, body.
fn label(message: &serde_json::Value) -> String {
    let line = message["line"].as_str().unwrap_or_default();
    let header = |name: &str| {
        message["headers"]
            .as_array()?
            .iter()
            .find(|header| header[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))?[1]
            .as_str()
    };
    let mut words = line.split_ascii_whitespace();
    let mut label = match (message["proto"].as_str(), words.next()) {
        (Some("SIP"), Some("SIP/2.0")) => {
            let status = words.next().unwrap_or_default();
            let method = header("CSeq").and_then(|cseq| cseq.split_ascii_whitespace().nth(1));
            format!("{status} {}", method.unwrap_or_default())
        }
        (Some("SIP"), Some(method)) => method.to_owned(),
        (Some("MSRP"), Some(_)) => {
            let what = words.nth(1).unwrap_or_default();
            let range = header("Byte-Range").filter(|_| what == "SEND");
            format!("MSRP {what} {}", range.unwrap_or_default())
        }
        (Some(proto), _) => format!("{proto} {line}"),
        (None, _) => line.to_owned(),
    };
    label.truncate(label.trim_end().len());
    if let Some(leg) = message["leg"].as_u64() {
        let _ = write!(label, " #{leg}");
    }
    if let Some(media) = message["body"]["type"].as_str() {
        let media = media.split(';').next().unwrap_or_default();
        let short = media.rsplit('/').next().unwrap_or_default();
        let _ = write!(label, " ({short})");
    }
    label
}

/// Draws the flow that `GET /api/pages/{id}/flow` answered.
pub fn text(flow: &serde_json::Value) -> String {
    let (ends, steps) = steps(flow);
    let mut picture = format!("page {}\n", flow["page"].as_str().unwrap_or("?"));
    if flow["truncated"].as_bool() == Some(true) {
        picture.push_str("(some messages are missing: a bound was reached)\n");
    }
    if steps.is_empty() {
        picture.push_str("(no messages)\n");
        return picture;
    }
    let mut names = " ".repeat(14);
    for end in &ends {
        names.push_str(&centre(end, COLUMN, ' '));
    }
    picture.push_str(names.trim_end());
    picture.push('\n');
    for step in &steps {
        let clock = step.time.get(11..23).unwrap_or(step.time);
        let _ = writeln!(picture, "{clock:<14}{}", arrow(ends.len(), step).trim_end());
    }
    picture
}

/// One row: lifelines as `|`, the arrow between two of them.
fn arrow(columns: usize, step: &Step<'_>) -> String {
    let line = |column: usize| column * COLUMN + COLUMN / 2;
    let mut row: Vec<char> = vec![' '; columns * COLUMN];
    for column in 0..columns {
        row[line(column)] = '|';
    }
    let (left, right) = (line(step.from.min(step.to)), line(step.from.max(step.to)));
    if left == right {
        let note: Vec<char> = format!(" o {}", step.label).chars().collect();
        for (place, character) in row[left + 1..].iter_mut().zip(note) {
            *place = character;
        }
        return row.into_iter().collect();
    }
    let inner = right - left - 1;
    let shaft: Vec<char> = centre(&format!(" {} ", step.label), inner, '-').chars().collect();
    row[left + 1..right].copy_from_slice(&shaft);
    if step.from < step.to {
        row[right - 1] = '>';
    } else {
        row[left + 1] = '<';
    }
    row.into_iter().collect()
}

/// `text` in the middle of exactly `width` characters, cut where it is longer.
fn centre(text: &str, width: usize, fill: char) -> String {
    let room = width.saturating_sub(2);
    let length = text.chars().count();
    let mut cut: String = text.chars().take(room).collect();
    if length > room
        && let Some((last, _)) = cut.char_indices().next_back()
    {
        cut.truncate(last);
        cut.push('~');
    }
    let left = (width - cut.chars().count()) / 2;
    let right = width - cut.chars().count() - left;
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    format!("{}{cut}{}", fill(left), fill(right))
}
