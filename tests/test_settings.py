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


def test_an_unknown_key_suggests_the_nearest(environ: dict[str, str]) -> None:
    write(environ, "max_node = 4\n")
    with pytest.raises(SettingsError, match="did you mean max_nodes"):
        settings.load(environ)


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
def test_no_cap_is_passed_by_what_is_no_number(environ: dict[str, str], value: str) -> None:
    with pytest.raises(SettingsError, match="max_usd_per_hour"):
        settings.load(environ | {"PPE_MAX_USD_PER_HOUR": value})


def test_an_empty_value_restores_the_default(environ: dict[str, str]) -> None:
    path = write(environ, "# mine\nmax_nodes = 4\n")
    settings.save("max_nodes", "", environ=environ)
    assert settings.load(environ).max_nodes is None and path.read_text() == "# mine\n"


# What cloudRmpi 1.2 wrote (cran/cloudRmpi, java/com/norbl/util/ParamHt.java): pairs, keys in any case of letters.
ANCESTORS = """\
# EC2
awsuserid=1234-5678-9012
awsAccessKey=AKIDEXAMPLE
awsSecretKey = wJalr/XUt#nFEMI+K7MDENG
keyName=bw_keypair0
rsaKeyPairFile=/home/bw/.ec2/bw_keypair0.pem
nInstances=4
"""


def test_the_ancestors_file_is_recognized_and_says_what_to_do(environ: dict[str, str]) -> None:
    path = write(environ, ANCESTORS)
    with pytest.raises(SettingsError, match=rf"cloudRmpi's; convert it with: %ppe_config import {path}"):
        settings.load(environ)


def test_the_ancestors_file_is_converted_and_kept(environ: dict[str, str], tmp_path: Path) -> None:
    path = write(environ, ANCESTORS)
    credentials = tmp_path / "aws" / "credentials"
    environ["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
    said = "\n".join(settings.import_ancestor(environ=environ))
    loaded = settings.load(environ)
    assert (loaded.key_name, loaded.key_file) == ("bw_keypair0", Path("/home/bw/.ec2/bw_keypair0.pem"))
    assert (loaded.cloud, loaded.profile) == ("local", "cloudRmpi")
    kept = path.with_name(path.name + ".cloudRmpi")
    assert kept.read_text() == ANCESTORS and "wJalr" not in said + path.read_text()
    assert "aws_secret_access_key = wJalr/XUt#nFEMI+K7MDENG" in credentials.read_text()
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in (path, kept, credentials))
    assert "ninstances (--nodes)" in said
    with pytest.raises(SettingsError, match="is not a configuration file of cloudRmpi"):
        settings.import_ancestor(environ=environ)


def test_an_ancestors_file_elsewhere_is_merged(environ: dict[str, str], tmp_path: Path) -> None:
    write(environ, "max_nodes = 4\n")
    old = tmp_path / ".ppe-aws-client-config"
    old.write_text(
        "ProxyHost=proxy\nsetProxyPort=3128\nsetProxyUsername=me@home\nProxyPassword=p:w\nConnectionTimeout=7500\n"
    )
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = A\n")
    settings.import_ancestor(str(old), environ=environ | {"AWS_SHARED_CREDENTIALS_FILE": str(credentials)})
    loaded = settings.load(environ)
    assert (loaded.max_nodes, loaded.connect_timeout) == (4, 7.5)
    assert loaded.proxy == "http://me%40home:p%3Aw@proxy:3128"
    assert old.exists() and credentials.read_text() == "[default]\naws_access_key_id = A\n"


def test_aws_keys_never_replace_a_profile(environ: dict[str, str], tmp_path: Path) -> None:
    write(environ, ANCESTORS)
    credentials = tmp_path / "credentials"
    text = "[default]\naws_access_key_id = A\n[cloudRmpi]\naws_access_key_id = B\n"
    credentials.write_text(text)
    said = settings.import_ancestor(environ=environ | {"AWS_SHARED_CREDENTIALS_FILE": str(credentials)})
    assert credentials.read_text() == text and "stays as it is" in said[0]


def test_a_bad_value_of_the_ancestors_leaves_everything_as_it_was(environ: dict[str, str]) -> None:
    path = write(environ, ANCESTORS + "MaxErrorRetry=many\n")
    with pytest.raises(SettingsError, match="retries = 'many'"):
        settings.import_ancestor(environ=environ)
    assert path.read_text().startswith(ANCESTORS) and [*path.parent.iterdir()] == [path]
