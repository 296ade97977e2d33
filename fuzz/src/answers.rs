//! Answers of models: however one is cut into chunks, the same is passed on.
//!
//! Input: a byte that says the format and who looks, one that says how it is cut, and the answer.

use signet_gateway::probe::{FORMATS, passed};

use crate::{Held, ensure};

pub(crate) fn hold(bytes: &[u8]) -> Held {
    let [how, cut, answer @ ..] = bytes else { return Ok(()) };
    passes(*how, *cut, answer)
}

/// An answer that nobody looks at is passed on as it is; one that somebody does, alike however it is cut, or not at all.
///
/// # Errors
/// What does not hold.
pub fn passes(how: u8, cut: u8, answer: &[u8]) -> Held {
    let format = usize::from(how) % FORMATS;
    let (hides, held_back) = (how & 0x40 != 0, (how & 0x80 != 0).then_some(usize::from(how >> 3) & 7));
    let whole = passed(format, hides, held_back, std::iter::once(answer));
    let cut = passed(format, hides, held_back, answer.chunks(usize::from(cut).max(1)));
    ensure(whole == cut, || format!("{whole:?} and {cut:?}"))?;
    let is_same = !hides && held_back.is_none();
    ensure(!is_same || whole.as_deref() == Ok(answer), || format!("{whole:?}"))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let answers = [
        "data: {\"candidates\":[{\"index\":0,\"content\":{\"parts\":[{\"text\":\"a b\"}]},\"finishReason\":\"STOP\"}]}\r\n\r\n",
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\",\"thought\":true}]}}]},\n{\"usageMetadata\":{\"promptTokenCount\":1}}]",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{\\\"a\"}}]},\"finish_reason\":\"stop\"}]}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"a\"}\n\nevent: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"output_index\":0,\"text\":\"a\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    ];
    let hows = [0, 0x40, 0x88, 0xc0_u8];
    let formats = [0, 0, 2, 2, 3, 6_u8];
    let seed = |(answer, format): (&&str, u8), how: u8| {
        let how = (how..=u8::MAX).find(|how| how % FORMATS as u8 == format).unwrap_or(format);
        [&[how, 3][..], answer.as_bytes()].concat()
    };
    answers.iter().zip(formats).flat_map(|pair| hows.map(|how| seed(pair, how))).collect()
}
