//! A flow as a ladder diagram for a browser. Static: no script, no link, every text escaped.

use std::fmt::Write;

use super::ladder;

const COLUMN: usize = 240;
const ROW: usize = 26;
const LEFT: usize = 110;
const TOP: usize = 60;

/// Draws the flow that `GET /api/pages/{id}/flow` answers.
pub fn draw(flow: &serde_json::Value) -> String {
    let (ends, steps) = ladder::steps(flow);
    let centre = |column: usize| LEFT + column * COLUMN + COLUMN / 2;
    let width = LEFT + ends.len().max(1) * COLUMN;
    let height = TOP + (steps.len() + 1) * ROW + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"12\">\n\
         <defs><marker id=\"a\" markerWidth=\"8\" markerHeight=\"8\" refX=\"8\" refY=\"4\" orient=\"auto\">\
         <path d=\"M0,0 L8,4 L0,8 z\" fill=\"#246\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" fill=\"#555\">page {}{}</text>\n",
        escape(flow["page"].as_str().unwrap_or("?")),
        if flow["truncated"].as_bool() == Some(true) { " (messages are missing)" } else { "" },
    );
    for (column, end) in ends.iter().enumerate() {
        let x = centre(column);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\
             <line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{}\" stroke=\"#bbb\"/>",
            TOP - 12,
            escape(end),
            height - 10,
        );
    }
    for (row, step) in steps.iter().enumerate() {
        let y = TOP + (row + 1) * ROW;
        let (from, to) = (centre(step.from), centre(step.to));
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{y}\" fill=\"#777\">{}</text>",
            escape(step.time.get(11..23).unwrap_or(step.time)),
        );
        if from == to {
            let _ = writeln!(
                svg,
                "<circle cx=\"{from}\" cy=\"{y}\" r=\"3\" fill=\"#246\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text>",
                from + 8,
                y + 4,
                escape(&step.label),
            );
            continue;
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"#246\" marker-end=\"url(#a)\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            usize::midpoint(from, to),
            y - 5,
            escape(&step.label),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Text that is safe between tags; control characters, which XML has no place for, become spaces.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
