//! Stop strings: generation ends before the first of them, wherever the tokens split it.

/// Watches generated text for strings that end it.
///
/// The string whose last character comes first wins; of several that end at the same place, the longest. That does not
/// depend on how the text was cut into pieces. Text is held back only while it may be the beginning of a stop string.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Pushed, and not yet known to be outside of every stop string.
    held: String,
    stopped: bool,
}

/// What a push sets free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Never holds a stop string, nor a part of the one that was met.
    pub text: String,
    /// A stop string was met: nothing comes after `text`.
    pub stopped: bool,
}

impl StopStrings {
    /// Empty strings stop nothing and are left out.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new(), stopped: false }
    }

    /// Takes the next text. After a stop string was met, everything is swallowed.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stopped {
            return Stopped { text: String::new(), stopped: true };
        }
        if self.stops.is_empty() {
            return Stopped { text: text.to_owned(), stopped: false };
        }
        let before = self.held.len();
        self.held.push_str(text);
        let ends = text.char_indices().map(|(at, c)| before + at + c.len_utf8());
        for end in ends {
            let met = self.stops.iter().filter(|stop| self.held[..end].ends_with(stop.as_str())).map(String::len).max();
            if let Some(length) = met {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(end - length);
                return Stopped { text, stopped: true };
            }
        }
        let keep = self.beginning_of_a_stop();
        let kept = self.held.split_off(self.held.len() - keep);
        Stopped { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// The text that was held back, once nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The length of the longest end of `held` that a stop string begins with.
    fn beginning_of_a_stop(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).saturating_sub(1);
        let from = self.held.len().saturating_sub(longest);
        let starts = (from..self.held.len()).filter(|at| self.held.is_char_boundary(*at));
        starts.map(|at| &self.held[at..]).find(|end| self.stops.iter().any(|stop| stop.starts_with(end))).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(stops: &[&str]) -> StopStrings {
        StopStrings::new(&stops.iter().map(|stop| (*stop).to_owned()).collect::<Vec<_>>())
    }

    /// What a user sees of `text`, found the slow way: cut at the stop string that is complete first.
    fn oracle(text: &str, stops: &[String]) -> (String, bool) {
        for end in 0..=text.len() {
            let Some(head) = text.get(..end) else { continue };
            if let Some(stop) = stops.iter().filter(|stop| !stop.is_empty() && head.ends_with(stop.as_str())).max_by_key(|stop| stop.len())
            {
                return (head[..end - stop.len()].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    #[test]
    fn a_stop_string_that_straddles_tokens_is_never_emitted() {
        let mut stop = stops(&["</end>"]);
        let texts: Vec<Stopped> = ["one <", "/e", "nd", "> two"].iter().map(|text| stop.push(text)).collect();
        assert_eq!(texts.iter().map(|stopped| stopped.text.as_str()).collect::<String>(), "one ");
        assert!(texts[3].stopped);
        assert_eq!(stop.push("more"), Stopped { text: String::new(), stopped: true });
        assert_eq!(stop.finish(), "");
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_released() {
        let mut stop = stops(&["aab"]);
        assert_eq!(stop.push("xaa").text, "x");
        assert_eq!(stop.push("a").text, "a");
        assert_eq!(stop.push("c").text, "aac");
        assert_eq!(stop.push("a").text, "");
        assert_eq!(stop.finish(), "a");
    }

    #[test]
    fn the_string_that_is_complete_first_wins() {
        assert_eq!(stops(&["bcd", "c"]).push("abcd"), Stopped { text: "ab".into(), stopped: true });
        assert_eq!(stops(&["c", "bc"]).push("abcd"), Stopped { text: "a".into(), stopped: true });
    }

    proptest! {
        #[test]
        fn any_cutting_gives_what_the_oracle_says(
            pieces in prop::collection::vec("[abé<]{0,4}", 0..12),
            stops in prop::collection::vec("[abé<]{0,4}", 0..4),
        ) {
            let mut stop = StopStrings::new(&stops);
            let (mut text, mut stopped) = (String::new(), false);
            for piece in &pieces {
                let out = stop.push(piece);
                text.push_str(&out.text);
                stopped = out.stopped;
            }
            text.push_str(&stop.finish());
            prop_assert_eq!((text, stopped), oracle(&pieces.concat(), &stops));
        }
    }
}
