"""FLAME's layout as a head of this house, on a made-up model whose truth is the built-in head."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import flame_like
import numpy as np
import pytest
import torch

from gsth import head, math3d
from gsth.errors import InputError, MissingExtraError
from gsth.head import _arkit_fit, _embed, _flame_file, flame, restricted
from gsth.types import Identity, Motion


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flame_like.write_npz(tmp_path_factory.mktemp("flame") / "flame2023_Open.npz")


@pytest.fixture(scope="module")
def model(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> head.HeadModel:
    pytest.importorskip("mediapipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        made = flame.Config(path=npz).build()
        assert head.load("flame") is made and head.load(made.id) is made, "found again without its path"
        with pytest.raises(InputError, match="no FLAME model with the digest 123"):
            flame.Config(digest="123").build()
        made_own = flame.own_space(made)
    object.__setattr__(made, "_own", made_own)
    return made


def test_a_python_2_pickle_with_chumpy_and_scipy_objects_reads_like_the_npz(npz: Path, tmp_path: Path) -> None:
    a, b = _flame_file.read(npz), _flame_file.read(flame_like.write_pkl(tmp_path / "generic_model.pkl"))
    for name, value in vars(a).items():
        np.testing.assert_allclose(value, getattr(b, name), err_msg=name)


def test_a_pickle_that_wants_to_run_something_is_refused_and_does_not(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"v_template": Evil()}))
    with pytest.raises(InputError, match=r"evil\.pkl: wants to build .*mkdir, which is no array"):
        _flame_file.read(path)
    assert not (tmp_path / "ran").exists()
    for harmful in (b"cbuiltins\neval\n(S'1'\ntR.", b"cos\nsystem\n(S'true'\ntR.", b"cnumpy\nload\n(S'x'\ntR."):
        with pytest.raises(InputError, match="refused"):
            restricted.unpickled(io.BytesIO(harmful), "x")


def test_numpy_is_given_no_state_of_a_stranger() -> None:
    """A made-up state of a dtype crashes the process in numpy's own code; sizes must be those of the values."""
    whole = pickle.dumps({"a": np.arange(6.0).reshape(2, 3, order="F"), "n": np.float32(3), "b": np.array(True)}, 2)
    read = restricted.unpickled(io.BytesIO(whole), "x")
    np.testing.assert_array_equal(read["a"], np.arange(6.0).reshape(2, 3, order="F"))
    assert read["n"] == 3 and bool(read["b"])
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    for harmful in (
        dtype + b"(I3\nS'|'\nN(S'a'\ntN}I-1\nI-1\nI4294967295\ntb.",  # an object dtype by its flags
        array + b"(I1\n(I4294967296\nt" + dtype + b"I0\nS''\ntb.",  # 32 GiB of nothing
        array + b"(I1\n(I3\nt" + dtype + b"I0\nI99999999999\ntb.",
        b"cnumpy\nndarray\n(I99999999\ntR.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 32 GiB
        b"c_codecs\nencode\n(N}S'__defaults__'\n(tstb.",
    ):
        try:
            found = restricted.unpickled(io.BytesIO(harmful), "x")
        except InputError:
            continue
        assert type(found).__module__ == "gsth.head.restricted", found  # a holder, which holds nothing of use


def test_values_that_hold_one_another_do_not_keep_it_busy(tmp_path: Path) -> None:
    """60 that hold the one before twice are 2**60 values to whoever compares them or writes them out, and 200,000
    tuples in one another are more than the system's stack holds. Outcome: refused before anything is made of them."""
    twice = b"2\x86" * 60
    inside = b"\x85" * 200_000
    kept = b"2\x86}b(e" * 60  # between them, what leaves a tuple as it is
    memo = b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    for nested in (b")" + twice, b")" + inside, b")" + kept, memo):
        for use in (b"\x80\x02}" + nested + b"K\x01s.", b"\x80\x04\x8f(" + nested + b"\x90."):  # a key; in a set
            with pytest.raises(InputError, match="tuples of more than 256 values"):
                restricted.unpickled(io.BytesIO(use), "x")
    lists = b"(l" + b"".join(b"p%d\n0(g%d\ng%d\nl" % (i, i, i) for i in range(60))
    for shown in (b"cnumpy\ndtype\n(" + lists + b"tR.", b"c_codecs\nencode\n(Va\n" + lists + b"tR."):
        with pytest.raises(InputError, match="list, which is no array"):
            restricted.unpickled(io.BytesIO(shown), "x")
    sparse = b"(dVdata\n" + lists + b"sVindices\n" + lists + b"sVindptr\n" + lists + b"s"
    held = b"cscipy.sparse\ncsc_matrix\n(tR" + sparse + b"b"
    fields = b"".join(b"V%s\n%ss" % (name, held) for name in (b"v_template", b"f", b"shapedirs", b"J_regressor"))
    (tmp_path / "m.pkl").write_bytes(b"(d" + fields + b"Vweights\n" + held + b"s.")
    with pytest.raises(InputError, match="its parts are no arrays"):
        _flame_file.read(tmp_path / "m.pkl")


def test_a_sparse_matrix_takes_no_more_memory_than_its_values() -> None:
    far = {"data": np.ones(1), "indices": np.zeros(1, int), "indptr": np.array([0, 10**12, 1]), "shape": (5, 2)}
    with pytest.raises(InputError, match="its columns do not fit its values"):
        _flame_file._dense(far, "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shapedirs": np.zeros((10, 3, 10))}, "shapedirs is"),
        ({"weights": None}, "has no weights"),
        ({"v_template": np.full((4, 3), np.nan)}, "wanted|not finite"),
    ],
)
def test_what_is_not_flame_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, np.ndarray | None], reason: str
) -> None:
    arrays = {k: v for k, v in {**flame_like.arrays(), **change}.items() if v is not None}
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        _flame_file.read(tmp_path / "m.npz")
    (tmp_path / "cut.pkl").write_bytes(b"\x80\x02}")
    with pytest.raises(InputError, match="cannot be read as a pickle"):
        _flame_file.read(tmp_path / "cut.pkl")
    with pytest.raises(InputError, match="no such file"):
        _flame_file.read(tmp_path / "absent.npz")


def test_landmarks_found_by_drawing_lie_where_the_built_in_head_has_them(model: head.HeadModel) -> None:
    builtin = head.load("builtin")
    there, here = (m.landmarks(m.template[None])[0] for m in (builtin, model))
    away = here - there
    away = (away - away.median(0).values).norm(dim=-1)
    assert away.median() < 0.003 and away[[33, 133, 362, 263, 1, 13, 14, 61, 291]].max() < 0.008
    assert model.parts["eye_l"].numel() and model.parts["lips"].numel() and model.parts["face"].numel()


def test_arkit_expressions_move_it_as_they_move_the_built_in_head(model: head.HeadModel) -> None:
    builtin = head.load("builtin")

    def moved(m: head.HeadModel) -> torch.Tensor:
        corners = m.faces[m.landmark_faces]
        return (m.expr_basis[:, corners] * m.landmark_bary[..., None]).sum(2)

    assert model.expression_names == builtin.expression_names
    here, there = moved(model).flatten(1), moved(builtin).flatten(1)
    alike = torch.cosine_similarity(here, there)
    for name in ("jawOpen", "mouthPucker", "mouthSmileLeft", "mouthFunnel", "eyeBlinkLeft", "cheekPuff", "mouthLeft"):
        i = model.expression_names.index(name)
        assert alike[i] > 0.85, name
        assert 0.7 < here[i].norm() / there[i].norm() < 1.3, name


def test_own_coefficients_and_activations_go_there_and_back(model: head.HeadModel) -> None:
    own: flame.OwnSpace = model._own  # type: ignore[attr-defined]
    wanted = np.zeros((3, 52))
    names = model.expression_names
    wanted[0, names.index("jawOpen")], wanted[1, names.index("mouthPucker")] = 0.6, 0.8
    wanted[2, [names.index("mouthSmileLeft"), names.index("mouthSmileRight")]] = 0.7
    codes = own.flame(wanted)
    back = own.arkit(codes[:, :100], codes[:, 100:] * flame.AXES)
    assert np.abs(back - wanted).max() < 0.25 and np.abs(back - wanted).mean() < 0.02
    assert ((back >= 0) & (back <= 1)).all()


def test_bounded_least_squares_finds_what_made_the_movement() -> None:
    rng = np.random.default_rng(0)
    basis, truth = rng.normal(size=(6, 30, 3)), rng.uniform(0, 1, (5, 6)) * (rng.random((5, 6)) > 0.4)
    found = _arkit_fit.activations(np.einsum("te,evc->tvc", truth, basis), basis, sparse=0)
    np.testing.assert_allclose(found, truth, atol=1e-3)


def test_posed_as_smplx_poses_flame(model: head.HeadModel, npz: Path) -> None:
    """Linear blend skinning, shape and neck, against FLAME's own code (which is why smplx is not needed to run)."""
    lbs = pytest.importorskip("smplx.lbs").lbs
    raw = {
        k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in flame_like.arrays().items() if k != "kintree_table"
    }
    betas = torch.zeros(1, 400)
    betas[0, :5] = torch.tensor((1.0, -0.5, 0.8, 0.2, -1.0))
    pose = torch.zeros(1, 15)
    pose[0, 3:6], pose[0, 9:12] = torch.tensor((0.2, -0.4, 0.1)), torch.tensor((0.1, 0.2, 0.0))
    verts, _ = lbs(
        betas, pose, raw["v_template"][None], raw["shapedirs"], raw["posedirs"].reshape(-1, 36).T,
        raw["J_regressor"], torch.tensor((-1, 0, 1, 1, 1)), raw["weights"],
    )  # fmt: skip
    own: flame.OwnSpace = model._own  # type: ignore[attr-defined]
    wanted = (verts[0].numpy() - own.origin) * flame.AXES
    joints = math3d.quat_identity(1, 5)
    axes = torch.from_numpy(flame.AXES).float()
    joints[0, 2] = math3d.rotvec_to_quat(pose[0, 3:6] * axes)
    joints[0, 3] = math3d.rotvec_to_quat(pose[0, 9:12] * axes)
    shape = torch.zeros(len(model.shape_basis))
    shape[:5] = betas[0, :5]
    still = torch.cat((math3d.quat_identity(1), torch.zeros(1, 3)), 1)
    motion = Motion(model.id, 25.0, torch.zeros(1, 52), joints, still)
    mine = model.shaped(Identity(model.id, shape)).posed(motion).verts[0]
    assert np.abs(mine.numpy() - wanted).max() < 1e-4


def test_a_mediapipe_without_models_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe")
    nothing = np.zeros((0, 3))
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.face_mesh", None)
    with pytest.raises(InputError, match="ships no models.*0.10.14"):
        _embed._look(nothing, nothing, nothing, (nothing, (0, 0)))
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match=r"gsth\[flame\]"):
        _embed._look(nothing, nothing, nothing, (nothing, (0, 0)))


def test_without_a_file_it_says_what_to_give(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    code = "from gsth import head; head.load('flame')"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env)
    assert "give --flame-path FILE" in ran.stderr
