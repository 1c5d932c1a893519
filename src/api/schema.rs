//! Pieces of schema that attributes cannot express.
//!
//! Owns bounds of maps, times and conditions. Refuses to know the fields that use them.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A map of at most 32 pairs, each value at most 1,024 characters.
pub fn small_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 1024}
    })
}

/// `metav1.Time`, bounded.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}

/// `metav1.Condition` with the bounds of its Go type: the schema that k8s-openapi gives has none.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"description": "The name of the condition.", "type": "string", "minLength": 1, "maxLength": 316},
                "status": {"description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"description": "The `metadata.generation` that it is about.", "type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"description": "When its status changed last.", "type": "string", "format": "date-time", "maxLength": 64},
                "reason": {
                    "description": "Why, as one word.", "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {"description": "For people: what is the matter, and what to do.", "type": "string", "maxLength": 32768}
            }
        }
    })
}
