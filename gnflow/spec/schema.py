"""Write the grammar as JSON Schema (draft 2020-12), for completion and checks in editors.

A file that extends others, or has no `name` because others extend it, is checked against a partial form, in which any
key may be absent.
"""

from collections.abc import Mapping

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import find_help

_PATH = {"type": "string", "minLength": 1}
_EXTENDS: JsonSchemaValue = {
    "description": "Specs that this one is laid on top of, relative to this file; the later wins.",
    "anyOf": [_PATH, {"type": "array", "items": _PATH}],
}
_Definitions = Mapping[str, JsonSchemaValue]


class _Helpful(GenerateJsonSchema):
    """A generator that adds the help of fields, and leaves out titles that repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        body = super().model_schema(schema)
        for field, inner in body["properties"].items():
            if text := find_help(schema["cls"], field):
                inner["description"] = text
        return body


def make_schema() -> JsonSchemaValue:
    """Return the JSON Schema of a spec file."""
    models = Experiment.model_json_schema(schema_generator=_Helpful, ref_template="{model}")
    definitions: dict[str, JsonSchemaValue] = {**models.pop("$defs"), "Experiment": models}
    models["properties"] = {"extends": _EXTENDS, **models["properties"]}
    whole = {name: _rewrite(body, definitions, partial=False) for name, body in definitions.items()}
    parts = {f"{name}.partial": _rewrite(body, definitions, partial=True) for name, body in definitions.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gnflow spec",
        "type": "object",
        "if": {"anyOf": [{"required": ["extends"]}, {"not": {"required": ["name"]}}]},
        "then": {"$ref": "#/$defs/Experiment.partial"},
        "else": {"$ref": "#/$defs/Experiment"},
        "$defs": whole | parts,
    }


def _rewrite(body: JsonSchemaValue, definitions: _Definitions, partial: bool) -> JsonSchemaValue:
    """Return `body` with names of kinds allowed in place of their mappings; the partial form requires nothing."""
    rewritten: JsonSchemaValue = {}
    for key, value in body.items():
        if key == "required" and partial:
            continue
        if key == "properties":
            rewritten[key] = {name: _rewrite(inner, definitions, partial) for name, inner in value.items()}
        elif key in ("anyOf", "prefixItems"):
            rewritten[key] = [_rewrite(inner, definitions, partial) for inner in value]
        elif key == "items" and isinstance(value, dict):
            rewritten[key] = _rewrite(value, definitions, partial)
        elif key == "oneOf":
            names, default = [inner["$ref"] for inner in value if "$ref" in inner], body.get("defaultKind")
            plain = [inner for inner in value if "$ref" not in inner]
            rewritten["anyOf"] = plain + _list_alternatives(names, definitions, partial, tagged=True, default=default)
        elif key == "$ref":
            alternatives = _list_alternatives([value], definitions, partial, tagged=False)
            rewritten |= alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
        elif key not in ("discriminator", "defaultKind"):
            rewritten[key] = value
    return rewritten


def _list_alternatives(
    names: list[str], definitions: _Definitions, partial: bool, tagged: bool, default: str | None = None
) -> list[JsonSchemaValue]:
    alternatives: list[JsonSchemaValue] = []
    kinds = []
    for name in names:
        required = definitions[name].get("required", [])
        if kind := definitions[name]["properties"].get("kind"):
            kinds += [kind["const"]] if partial or not required else []
        reference: JsonSchemaValue = {"$ref": f"#/$defs/{name}.partial" if partial else f"#/$defs/{name}"}
        if tagged and not partial and not (kind and kind["const"] == default):
            # In full: some editors let what stands beside a $ref replace what it refers to.
            reference["required"] = ["kind", *required]
        alternatives.append(reference)
    return [{"enum": kinds}, *alternatives] if kinds else alternatives
