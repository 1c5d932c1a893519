//! The words of an unfinished command line.
//!
//! Owns the ways to write a flag with a value. Refuses to know any flag: a parser would refuse a line that is not
//! finished.

/// The words before the one that is completed, and that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    pub fn new(words: impl Iterator<Item = String>) -> Self {
        Self(words.collect())
    }

    /// The last value of a flag: `--flag value`, `--flag=value`, `-f value` or `-fvalue`.
    pub fn value(&self, long: &str, short: Option<char>) -> Option<String> {
        let (long, assigned) = (format!("--{long}"), format!("--{long}="));
        let short = short.map(|short| format!("-{short}"));
        let mut found = None;
        for (index, word) in self.0.iter().enumerate() {
            if *word == long || Some(word) == short.as_ref() {
                found = self.0.get(index + 1).cloned();
            } else if let Some(value) = word.strip_prefix(&assigned) {
                found = Some(value.to_owned());
            } else if let Some(value) = short.as_ref().and_then(|short| word.strip_prefix(short.as_str())) {
                found = Some(value.trim_start_matches('=').to_owned());
            }
        }
        found.filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_value() {
        for (line, wanted) in [
            ("status -n shop x", Some("shop")),
            ("status -nshop x", Some("shop")),
            ("status -n=shop", Some("shop")),
            ("status --namespace shop", Some("shop")),
            ("status --namespace=shop --namespace=other", Some("other")),
            ("status --namespaces shop", None),
            ("status -n", None),
            ("status --namespace=", None),
        ] {
            let words = Words::new(line.split(' ').map(ToOwned::to_owned));
            assert_eq!(words.value("namespace", Some('n')).as_deref(), wanted, "{line}");
        }
    }
}
