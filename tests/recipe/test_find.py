"""Which file a recipe name means."""

import pytest

from ssvid.errors import RecipeError
from ssvid.recipe import find
from ssvid.recipe.find import find_recipe, header_of, list_recipes, read_recipe_text


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    root = tmp_path / "recipes"
    (root / "demo").mkdir(parents=True)
    (root / "demo/speediness.yaml").write_text("# Title.\n#\n#   indented\nkind: pretrain\n# not the header\n")
    (root / "notes.txt").write_text("no recipe")
    monkeypatch.setattr(find, "shipped_recipes_dir", lambda: root)
    return root


def test_a_path_and_a_shipped_name(shipped, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.write_text("kind: pretrain\n")
    assert find_recipe(own) == own
    assert find_recipe("demo/speediness") == shipped / "demo/speediness.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/speediness").mkdir()  # a folder of that name hides no recipe
    assert find_recipe("demo/speediness") == shipped / "demo/speediness.yaml"


def test_listing_and_header(shipped):
    (recipe,) = list_recipes()
    assert recipe.name == "demo/speediness"
    assert recipe.title == "Title."
    assert recipe.header == "Title.\n\n  indented"
    assert header_of("kind: x\n# late") == ""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("demo/spediness", ["unknown recipe 'demo/spediness'", "Did you mean 'demo/speediness'?"]),
        (
            "demo/speediness.yaml",
            ["no recipe file demo/speediness.yaml", "by its name", "Did you mean 'demo/speediness'?"],
        ),
        ("./nowhere", ["no recipe file ./nowhere"]),
        (".", [". is a folder", "data.root=."]),
    ],
)
def test_unknown_names(shipped, name, parts):
    with pytest.raises(RecipeError) as caught:
        find_recipe(name)
    for part in parts:
        assert part in str(caught.value)


def test_the_folder_of_a_run_is_no_recipe(shipped, tmp_path):
    (tmp_path / "recipe.resolved.yaml").write_text("kind: pretrain\n")
    with pytest.raises(RecipeError, match=r"is the folder of a run.*--resume.*recipe\.resolved\.yaml"):
        find_recipe(tmp_path)


def test_files_that_are_no_recipes(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match=r"binary\.yaml is not UTF-8 text \(byte 0\)"):
        read_recipe_text(tmp_path / "binary.yaml")
    with pytest.raises(RecipeError, match="1,000,001 bytes"):
        read_recipe_text(tmp_path / "huge.yaml")
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_recipe_text(tmp_path / "none.yaml")


def test_an_installation_without_recipes_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "ssvid/recipe/find.py"))
    with pytest.raises(RecipeError, match="Install ssvid again"):
        find.shipped_recipes_dir()
    (tmp_path / "recipes").mkdir()
    assert find.shipped_recipes_dir() == tmp_path / "recipes"  # a checkout
    (tmp_path / "ssvid/shipped_recipes").mkdir(parents=True)
    assert find.shipped_recipes_dir() == tmp_path / "ssvid/shipped_recipes"  # a wheel
