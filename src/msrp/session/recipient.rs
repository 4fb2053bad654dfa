//! What a recipient sends on its one-way leg: control content is taken, anything else refused.
//!
//! Follows IM-076, MS-014, MS-039, MS-106, MS-110. Keeps at most one CPIM head, and passes nothing on.

use std::sync::Arc;

use super::{Verdict, check_range, is_control, is_cpim, may_answer};
use crate::content::cpim;
use crate::msrp::codec::{FailureReport, Flag, Head};

/// The receiving half of a recipient's session.
#[derive(Debug, Default)]
pub struct FromRecipient {
    /// The control message whose chunks are coming.
    control: Option<Arc<str>>,
    chunk: Option<Box<Chunk>>,
    /// Control messages seen since last asked.
    pub control_seen: u64,
}

#[derive(Debug)]
struct Chunk {
    what: What,
    failure_report: FailureReport,
    id: Option<Arc<str>>,
}

#[derive(Debug)]
enum What {
    Bodiless,
    Untyped,
    Control,
    /// A CPIM head that does not tell yet.
    Unclear(Vec<u8>),
    Skipped,
}

impl FromRecipient {
    /// A SEND of the recipient whose session and connection are right.
    pub fn head(&mut self, head: &Head, max_message: u64) -> Verdict {
        let what = self.sort(head, max_message);
        let code = what.as_ref().err().copied();
        self.chunk = Some(Box::new(Chunk {
            what: what.unwrap_or(What::Skipped),
            failure_report: head.failure_report,
            id: head.message_id.clone(),
        }));
        code.map_or(Verdict::Take, Verdict::Skip)
    }

    fn sort(&self, head: &Head, max_message: u64) -> Result<What, u16> {
        if head.message_id.is_none() {
            return Err(400);
        }
        if !head.has_body {
            return Ok(What::Bodiless);
        }
        check_range(head, max_message)?;
        if self.control == head.message_id {
            return Ok(What::Control);
        }
        let Some(content_type) = &head.content_type else { return Ok(What::Untyped) };
        let first = head.range.is_none_or(|range| range.start == 1);
        if is_control(content_type) {
            Ok(What::Control)
        } else if is_cpim(content_type) && first {
            Ok(What::Unclear(Vec::new()))
        } else {
            Err(403)
        }
    }

    /// Octets of the body.
    pub fn body(&mut self, octets: &[u8]) -> Verdict {
        let Some(chunk) = &mut self.chunk else { return Verdict::Take };
        match &mut chunk.what {
            What::Untyped => {
                chunk.what = What::Skipped;
                return Verdict::Skip(400);
            }
            What::Unclear(start) => {
                let room = (cpim::MAX_HEAD + 1).saturating_sub(start.len()).min(octets.len());
                start.extend_from_slice(&octets[..room]);
                match cpim::parse(start) {
                    Ok(None) => {}
                    Ok(Some(head)) if is_control(&head.content_type.essence) => {
                        chunk.what = What::Control;
                    }
                    Ok(Some(_)) | Err(_) => {
                        chunk.what = What::Skipped;
                        return Verdict::Skip(403);
                    }
                }
            }
            What::Bodiless | What::Control | What::Skipped => {}
        }
        Verdict::Take
    }

    /// The end-line: the response to send.
    pub fn end(&mut self, flag: Flag) -> Option<u16> {
        let chunk = self.chunk.take()?;
        let code = match chunk.what {
            What::Skipped => return None,
            What::Unclear(_) => 403,
            What::Bodiless | What::Untyped => 200,
            What::Control => {
                if flag == Flag::More {
                    self.control = chunk.id;
                } else {
                    self.control = None;
                    self.control_seen += 1;
                }
                200
            }
        };
        may_answer(chunk.failure_report, code).then_some(code)
    }
}
