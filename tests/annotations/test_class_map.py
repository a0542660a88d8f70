# SPDX-License-Identifier: Apache-2.0
import pytest
import yaml

from tral_monai.annotations.class_map import ClassMap, ClassRule
from tral_monai.errors import ConfigError, UnknownClassError


@pytest.fixture
def bladder() -> ClassMap:
    return ClassMap.from_yaml("bladder")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Blood vessel", "Blood"),
        ("Cauterized Blood", "Blood"),  # the first rule wins
        ("Cauterized", "Damaged"),
        ("Blurry area", "Damaged"),
        ("Folding", "Damaged"),
        ("Others", "Damaged"),
        ("Muscle", "Muscle"),
        ("Lamina propria", "Stroma"),
        ("Stroma", "Stroma"),
        ("Damaged", "Damaged"),
        ("Stroma (other)", None),  # only the whole name
        ("Grade 3", "Urothelium"),
        ("CIS", "Urothelium"),
        ("Dysplasia", "Urothelium"),
        ("Urothelium", "Urothelium"),
        ("Normal urothelium", "Urothelium"),
        ("Variant histology", "Urothelium"),
        ("Flat lesion", "Urothelium"),
        ("Invasive area", "Invasive area"),
        ("blood", None),  # the paper's texts are matched with their case
        ("Lymphocytes", None),
        (None, None),
    ],
)
def test_the_papers_names(bladder, name, expected):
    assert bladder.map(name) == expected


def test_the_papers_classes_colours_and_priority(bladder):
    assert bladder.classes == ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
    assert bladder.colors["Stroma"] == (240, 50, 230)
    assert list(bladder.colors) == list(bladder.classes)
    assert bladder.carve_out == ("Invasive area", "Blood", "Muscle")


def test_exact_and_case():
    rules = [
        {"match": "Tumor", "class": "A", "exact": True},
        {"match": ["tumor", "TÜMOR"], "class": "B", "case_sensitive": False},
        {"match": "umor", "class": None},
        {"match": "x", "class": "A", "how": "exact", "case_sensitive": False},
    ]
    classes = ClassMap(["A", "B"], rules)
    assert [classes.map(name) for name in ("Tumor", "Tumor bed", "my tümor", "Rumor", "X")] == [
        "A",
        "B",
        "B",
        None,
        "A",
    ]


def test_an_unknown_name_is_an_error_that_lists_names_and_rules():
    classes = ClassMap.identity(["Tumor"])
    assert classes.map("Tumor") == "Tumor"
    assert classes.map(None) is None
    with pytest.raises(
        UnknownClassError, match=r"no rule .* fits 'Tumour'\. Rules: Tumor \(exact\) -> Tumor\. Add a rule"
    ):
        classes.map("Tumour")
    error = classes.unknown_error(["Tumour", None], seen=["Tumor", "Tumour", None])
    assert "fits 'Tumour', (unclassified); names seen: 'Tumor', 'Tumour'" in str(error)
    assert classes.is_unknown("Tumour")
    assert not classes.is_unknown("Tumor")
    assert not classes.is_unknown(None)


def test_unclassified_can_be_an_error():
    classes = ClassMap(["A"], [], unknown="drop", unclassified="error")
    assert classes.map("x") is None
    with pytest.raises(UnknownClassError, match=r"fits \(unclassified\)"):
        classes.map(None)


def test_the_plain_form_reads_back(bladder, tmp_path):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(bladder.to_dict()))
    assert ClassMap.from_yaml(tmp_path / "m.yaml") == bladder


RULE = {"match": "a", "class": "A"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": []}, "at least one class"),
        ({"classes": "A"}, "'classes' must be a list, but is 'A'"),
        ({"classes": ["A", "A"]}, "'classes' holds 'A' more than once"),
        ({"classes": ["A", False]}, "'classes' must be a list of texts, but holds False; put it in quotes"),
        ({"rules": RULE}, "'rules' must be a list"),
        ({"rules": ["a"]}, "a class rule needs 'match' and 'class'"),
        ({"rules": [{"match": "a"}]}, "a class rule needs 'match' and 'class'"),
        ({"rules": [{**RULE, "match": True}]}, r"'match' must be text .* but is \[True\]"),
        ({"rules": [{**RULE, "match": []}]}, "'match' must be text"),
        ({"rules": [{**RULE, "match": ""}]}, "'match' must be text"),
        ({"rules": [{**RULE, "mach": "a"}]}, "has the keys match, .* but found 'mach'"),
        ({"rules": [{**RULE, "how": "regex"}]}, "'how' must be substring or exact, but is 'regex'"),
        ({"rules": [{**RULE, "how": "exact", "exact": True}]}, "either 'how' or 'exact', not both"),
        ({"rules": [{**RULE, "class": "C"}]}, "the rule 'a -> C' names no class; expected one of A"),
        ({"unknown": "ignore"}, "'unknown' must be error or drop, but is 'ignore'"),
        ({"unclassified": True}, "'unclassified' must be error or drop, but is True"),
        ({"colors": {"B": [0, 0, 0]}}, "'colors' names 'B', which is no class; the classes are A"),
        ({"colors": {"A": "#ff0000"}}, r"colour of 'A' must be a list \[red, green, blue\].*but is '#ff0000'"),
        ({"colors": {"A": [0, 0, 300]}}, "colour of 'A' must be"),
        ({"carve_out": "A"}, "'carve_out' must be a list"),
        ({"mpp": 1}, r"unknown: \['mpp'\], missing: \[\]"),
    ],
)
def test_wrong_settings_are_refused_with_the_files_name(tmp_path, settings, message):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"classes": ["A"], "rules": [RULE], **settings}))
    with pytest.raises(ConfigError, match=rf"class map m\.yaml: .*{message}"):
        ClassMap.from_yaml(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [A]", r"unknown: \[\], missing: \['rules'\]"),
        ("- A", "expected keys classes, rules"),
        ("a: [", "not valid YAML"),
    ],
)
def test_malformed_files_are_refused(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        ClassMap.from_yaml(tmp_path / "m.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        ClassMap.from_yaml(tmp_path / "nowhere.yaml")


def test_a_rule_explains_itself():
    assert str(ClassRule(("a", "b"), None)) == "a|b -> dropped"
