//! Stop texts: an answer ends where one of them begins, however tokens cut it.

/// Collects an answer's text and holds back what may become a stop text.
pub(super) struct StopText {
    stops: Vec<String>,
    text: String,
    /// Bytes of `text` that were given out.
    shown: usize,
    stopped: bool,
}

impl StopText {
    pub(super) fn new(stops: &[String]) -> Self {
        StopText {
            stops: stops.to_vec(),
            text: String::new(),
            shown: 0,
            stopped: false,
        }
    }

    /// Adds text; gives what is now certain to be part of the answer.
    pub(super) fn push(&mut self, new: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.text.push_str(new);
        // A stop text can begin only in what was not shown.
        let open = &self.text[self.shown..];
        let found = (self.stops.iter())
            .filter(|s| !s.is_empty())
            .filter_map(|s| open.find(s.as_str()))
            .min();
        let end = match found {
            Some(at) => {
                self.stopped = true;
                self.text.truncate(self.shown + at);
                self.text.len()
            }
            None => self.shown + open.len() - self.held(open),
        };
        self.show(end)
    }

    /// Length of the longest end of `open` that begins a stop text.
    fn held(&self, open: &str) -> usize {
        let longest = self.stops.iter().map(|s| s.len().saturating_sub(1)).max();
        let longest = longest.unwrap_or(0).min(open.len());
        (1..=longest)
            .rev()
            .filter(|n| open.is_char_boundary(open.len() - n))
            .find(|n| {
                let end = &open[open.len() - n..];
                self.stops
                    .iter()
                    .any(|s| s.len() > *n && s.starts_with(end))
            })
            .unwrap_or(0)
    }

    fn show(&mut self, end: usize) -> String {
        let new = self.text[self.shown..end].to_string();
        self.shown = end;
        new
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        self.show(self.text.len())
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut text = StopText::new(&stops);
        let mut shown: Vec<String> = pieces.iter().map(|p| text.push(p)).collect();
        shown.push(text.finish());
        let stopped = text.is_stopped();
        (shown, text.into_text(), stopped)
    }

    #[test]
    fn a_stop_text_cut_by_tokens_ends_the_answer() {
        let (shown, text, stopped) = run(&["\nUser:"], &["Hi", "!\nUs", "er: more"]);
        assert_eq!(shown, ["Hi", "!", "", ""]);
        assert_eq!((text.as_str(), stopped), ("Hi!", true));
    }

    #[test]
    fn what_only_looks_like_a_stop_text_is_shown_later() {
        let (shown, text, stopped) = run(&["###"], &["a#", "#b", "##"]);
        assert_eq!(shown, ["a", "##b", "", "##"]);
        assert_eq!((text.as_str(), stopped), ("a##b##", false));
    }

    #[test]
    fn the_earliest_of_several_stop_texts_counts() {
        let (_, text, stopped) = run(&["c", "b"], &["abc"]);
        assert_eq!((text.as_str(), stopped), ("a", true));
    }
}
