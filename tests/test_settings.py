"""Settings: the file, the environment over it, and what is refused."""

import stat
from pathlib import Path

import pytest

from ppe_jupyter import settings
from ppe_jupyter.errors import SettingsError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PPE_CONFIG": str(tmp_path / "ppe-config")}


def write(environ: dict[str, str], text: str, *, mode: int = 0o600) -> Path:
    path = Path(environ["PPE_CONFIG"])
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_local_cloud_is_the_default_even_with_aws_credentials(environ: dict[str, str]) -> None:
    environ |= {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert settings.load(environ).cloud == "local"


def test_environment_overrides_the_file(environ: dict[str, str]) -> None:
    write(environ, 'cloud = "aws"\nmax_nodes = 4\nkey_file = "~/k.pem"\n')
    loaded = settings.load(environ | {"PPE_MAX_NODES": "8"})
    assert (loaded.cloud, loaded.max_nodes, loaded.key_file) == ("aws", 8, Path.home() / "k.pem")


def test_a_file_that_others_can_read_is_refused_with_the_chmod(environ: dict[str, str]) -> None:
    path = write(environ, 'cloud = "local"\n', mode=0o644)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        settings.load(environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cloud = ", "is not TOML"),
        ('colour = "red"', "no setting 'colour'"),
        ('cloud = "azure"', "local or aws"),
        ('max_nodes = "many"', "max_nodes = 'many' is not int"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(environ: dict[str, str], text: str, message: str) -> None:
    path = write(environ, text)
    with pytest.raises(SettingsError, match=message) as caught:
        settings.load(environ)
    assert str(path) in str(caught.value)


def test_save_keeps_comments_and_makes_the_file_private(environ: dict[str, str]) -> None:
    write(environ, "# my clusters\nmax_nodes = 4\n")
    path = settings.save("cloud", "aws", environ=environ)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == '# my clusters\nmax_nodes = 4\ncloud = "aws"\n'
    assert settings.load(environ).cloud == "aws"


def test_a_refused_value_leaves_the_file_as_it_was(environ: dict[str, str]) -> None:
    path = write(environ, "max_nodes = 4\n")
    with pytest.raises(SettingsError):
        settings.save("max_nodes", "four", environ=environ)
    assert path.read_text() == "max_nodes = 4\n"
