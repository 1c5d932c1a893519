//! The format of a registry, as the CRD spells it.
//!
//! Owns its schema, and the rules of the CRD about the prefixes of each format. All of them follow from the list of
//! formats in the core. Refuses to know any framework.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twinspan_core::codec::Format;

/// Whose records a registry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFormat(pub Format);

impl From<RecordFormat> for Format {
    fn from(RecordFormat(format): RecordFormat) -> Self {
        format
    }
}

impl Serialize for RecordFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for RecordFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let found = Format::ALL.iter().find(|format| format.as_str() == text);
        found.map(|format| Self(*format)).ok_or_else(|| {
            let known: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
            D::Error::custom(format!("unknown variant `{text}`, expected one of {}", known.join(", ")))
        })
    }
}

impl JsonSchema for RecordFormat {
    fn schema_name() -> Cow<'static, str> {
        "RecordFormat".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
        json_schema!({"type": "string", "enum": names})
    }
}

/// The rule about prefixes that no program of the format uses.
pub(super) fn prefix_rule() -> String {
    let matches = |format: &Format| {
        let pattern = format.framework().prefix_pattern()?;
        Some(format!("self.format == '{}' ? self.prefix.matches('{pattern}') : ", format.as_str()))
    };
    format!("!has(self.prefix) || ({}true)", Format::ALL.iter().filter_map(matches).collect::<String>())
}

/// The rule about a fence among the records.
pub(super) fn fence_rule() -> String {
    let mut rule = "has(self.prefix) ? !self.fence.keyPrefix.startsWith((self.leadingSlash && self.prefix != '' && \
                    !self.prefix.startsWith('/') ? '/' : '') + self.prefix + '/') : "
        .to_owned();
    for format in Format::ALL.iter().filter(|format| !format.default_prefix().is_empty()) {
        let (name, prefix) = (format.as_str(), format.default_prefix());
        let slash = if prefix.starts_with('/') { "" } else { "(self.leadingSlash ? '/' : '') + " };
        rule += &format!("self.format == '{name}' ? !self.fence.keyPrefix.startsWith({slash}'{prefix}/') : ");
    }
    rule + "!self.leadingSlash || !self.fence.keyPrefix.startsWith('/')"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_is_read_as_it_is_written_and_no_other_word_is_one() {
        for &format in Format::ALL {
            let spelled = json!(RecordFormat(format));
            assert_eq!(spelled, format.as_str());
            assert_eq!(serde_json::from_value::<RecordFormat>(spelled).unwrap(), RecordFormat(format));
        }
        let error = serde_json::from_value::<RecordFormat>(json!("kitex")).unwrap_err().to_string();
        assert!(error.contains("`kitex`") && error.contains("Kitex, Hertz"), "{error}");
    }
}
