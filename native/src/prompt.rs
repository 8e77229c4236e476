//! From messages to tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use shardlight::chat::{DateTime, Message, Options};
use shardlight::session::Session;
use shardlight::tokenizer::Tokenizer;
use shardlight_tools::{Format, Request, Tools};

use crate::job;

/// The messages a conversation begins with.
pub fn begin(system: Option<&str>) -> Vec<Message> {
    system
        .map(|text| Message::new("system", text))
        .into_iter()
        .collect()
}

/// Tokens of `text` as it is.
pub fn raw(session: &Session, text: &str) -> anyhow::Result<Vec<u32>> {
    Ok(tokenizer(session)?.encode(text, true, true)?)
}

/// Tokens of `messages` in the model's own template, ready for the assistant's answer. A model without a
/// template was not made for conversations: it gets the texts, one a line, to continue.
pub fn render(session: &Session, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
    Ok(with_tools(session, messages, None)?.0)
}

/// As [`render`], with functions offered; gives, too, how calls of them are written.
pub fn with_tools(
    session: &Session,
    messages: &[Message],
    tools: Option<&Tools>,
) -> anyhow::Result<(Vec<u32>, Option<&'static Format>)> {
    let tokenizer = tokenizer(session)?;
    let Some(template) = session.template() else {
        if tools.is_some() {
            return Err(anyhow!(
                "this model has no chat template, so that it can be told of no functions; leave out --tools"
            ));
        }
        let texts: Vec<&str> = messages
            .iter()
            .filter_map(|message| message.0.get("content")?.as_str())
            .collect();
        return Ok((tokenizer.encode(&texts.join("\n"), true, false)?, None));
    };
    let text_of = |id: Option<u32>| {
        id.map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
            .unwrap_or_default()
    };
    let options = Options {
        add_generation_prompt: true,
        bos_token: text_of(tokenizer.bos()),
        eos_token: text_of(tokenizer.eos_ids().first().copied()),
        now: Some(now()),
        ..Options::default()
    };
    // The template writes the begin-of-sequence token itself where the model wants one.
    let request = Request::new(template, messages, tools, &options)?;
    let control = tokenizer.control_texts();
    let pieces = template.render_pieces(&request.messages, &request.options, &control)?;
    Ok((tokenizer.encode_pieces(&pieces, false)?, request.format))
}

fn tokenizer(session: &Session) -> anyhow::Result<&Tokenizer> {
    session.tokenizer().ok_or_else(|| {
        anyhow!("this model has no tokenizer; put its tokenizer.json beside the weights, or use `shardlight logits`")
    })
}

/// The time in UTC: the standard library does not know the local one.
fn now() -> DateTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    date(job::broadcast_u64(since.map_or(0, |since| since.as_secs())))
}

/// The date `seconds` after the beginning of 1970.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(seconds: u64) -> DateTime {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let year = year_of_era + era * 400 + u64::from(month >= 10);
    DateTime {
        year: year as i32,
        month: (if month < 10 { month + 3 } else { month - 9 }) as u8,
        day: (day_of_year - (153 * month + 2) / 5 + 1) as u8,
        hour: (seconds / 3600 % 24) as u8,
        minute: (seconds / 60 % 60) as u8,
        second: (seconds % 60) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, want) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_709_251_200, (2024, 3, 1, 0, 0, 0)),
            (1_798_761_599, (2026, 12, 31, 23, 59, 59)),
        ] {
            let d = date(seconds);
            assert_eq!(
                (d.year, d.month, d.day, d.hour, d.minute, d.second),
                want,
                "{seconds}"
            );
        }
    }
}
