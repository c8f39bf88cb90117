//! Python packages as folders for `PYTHONPATH`, assembled from wheels on PyPI: those of the examples, and the predecessor
//! of this project.
//!
//! They are not in the environment with Ray. The examples' packages are for a few tests, and the predecessor has a package
//! of the same name as ours.

use std::path::PathBuf;

use anyhow::Result;

use super::wheels::Assembly;

/// What the examples of the Python package import, and what these packages depend on.
///
/// Packages with native code have a wheel for each version of Python, and pip takes the one that fits.
pub(super) const EXAMPLES: Assembly = Assembly {
    name: "python-examples",
    wheels: &[
        "annotated-types==0.8.0 --hash=sha256:f072f4d804ea359e4eaf198b1af7a8b0943881a87f31bb764f8bf219bb9419e0",
        "anyio==4.16.0 --hash=sha256:c66ae634e0b8228396b801741beb3294326d4b6102f7bba4041c0dfb58c29026",
        "contourpy==1.3.3 \
         --hash=sha256:51e79c1f7470158e838808d4a996fa9bac72c498e93d8ebe5119bc1e6becb0db \
         --hash=sha256:4d00e655fcef08aba35ec9610536bfe90267d7ab5ba944f7032549c55a146da1 \
         --hash=sha256:4debd64f124ca62069f313a9cb86656ff087786016d76927ae2cf37846b006c9 \
         --hash=sha256:f64836de09927cba6f79dcd00fdd7d5329f3fccc633468507079c829ca4db4e3",
        "cycler==0.12.1 --hash=sha256:85cef7cff222d8644161529808465972e51340599459b8ac3ccbac5a854e0d30",
        "fastapi==0.116.1 --hash=sha256:c46ac7c312df840f0c9e220f7964bada936781bc4e2e6eb71f1c4d7553786565",
        "fonttools==4.68.0 \
         --hash=sha256:4b9c89b5876f1a74b1341632dfaf4c4c2be565d76c060445df401ebe7a4ceefa \
         --hash=sha256:3edce69ecdefa73ab1041901ca22eefed6ebb93a77bc77e889d940479f25bf7d \
         --hash=sha256:08851f7d2b983412f490b73a7c56f17cbda1d4d85d2ad3f857564bf15b5d9475 \
         --hash=sha256:cbb63b26d33acc3eb61f544c22a0cadbe01682fc064b266bb0e33fa66cea853f",
        "gunicorn==27.0.1 --hash=sha256:378b26b9a38adcf4592f28828233c1716acc55e833ea06bf48719782efaa0d10",
        "kiwisolver==1.5.1 \
         --hash=sha256:95a02752aa032eef4aed01cda6d9b687c669bd0396bf4519eef8bba22a286720 \
         --hash=sha256:34633ecf50d16187ab8e5528b7a2530f2feb4e23f300db4672538b51cfc5cd38 \
         --hash=sha256:74ad5c3dad54a4641b4c28cd15ded70899d04459c6c7aeacafea716be97cce6d \
         --hash=sha256:18a0cfb124546a4c2e6087c5f3029c7f44b37c85b142e0ced71f73a7599ac208",
        "matplotlib==3.11.2 \
         --hash=sha256:07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8 \
         --hash=sha256:df4f7784aca81a94f254c0a2767d592ee25f407e488f5fa7203e51093fb6ca27 \
         --hash=sha256:1944895967f87c84c9b4bad29a707b31f5b36df4a3a2339ea1f8ea3ce5105539 \
         --hash=sha256:8c8255de28f986d935a64c9ca71c0ec2d2f41d355691f5ea684725dc91413f71",
        "pillow==13.0.0 \
         --hash=sha256:a625df9a2a5597fa5e5266e01aefc82604bb85d291e3547981e863560d75da6c \
         --hash=sha256:42d63be3af4f9b951b199b0a9d23365d37ab14687e6d77b74940432c8515c4ca \
         --hash=sha256:5f56499c1a74d2b862beb0c33b8016f99d095858455df9d21583bbbc1c15b582 \
         --hash=sha256:e91c2b1cbeae768c98752e67e717e283d68dae45717b41f2d91eaee648e37b7d",
        "pydantic==2.14.4 --hash=sha256:653a2ad9f6d8858529c77c72717d0ea991d6c6837fe683246b2f4b2bbfc3fadc",
        "pydantic-core==2.50.5 \
         --hash=sha256:488319076ec92908b91fc6265ce761f1d78748f69f85518564fd16bf333e1b70 \
         --hash=sha256:470bbc2495367f60d3ca849a8039e4c164701d10637e7743f4427d92651bdb6d \
         --hash=sha256:cbfde3ad127786f1dea1a6cd89a5eb824a16203f24743ad2b4e07506f43bc844 \
         --hash=sha256:88b543705849d0c59343f97c38296dbf59eb7b3c9565bd4fe1ed638ba38da5ed",
        "pyparsing==3.3.3 --hash=sha256:ece8c00a69cf01b45d0b1dedabb469c90d8caf996d4fda40f147627a122849a4",
        "starlette==0.47.3 --hash=sha256:89c0778ca62a76b826101e7c709e70680a1699ca7da6b44d38eb0a7e61fe4b51",
        "typing-inspection==0.4.5 --hash=sha256:bc210535442b39e1bf2805e0c7a17dfd6a4ace760c84c7f7d16245d23a6b1c39",
    ],
    platform: &[],
    unpack: include_str!("unpack.py"),
    files: &["fastapi/__init__.py", "gunicorn/__init__.py", "matplotlib/__init__.py", "PIL/__init__.py"],
    otherwise: "install FastAPI, gunicorn, Pillow and matplotlib where the tests find them",
};

/// The Python predecessor of this project.
pub(super) const PREDECESSOR: Assembly = Assembly {
    name: "predecessor",
    wheels: &["ray-zerocopy==0.2.0 --hash=sha256:0de124b2a5f0a63ae836ae27bc03702ec183357934def83e2b4b2a1b078cf709"],
    platform: &[],
    unpack: include_str!("unpack.py"),
    files: &["ray_zerocopy/__init__.py", "ray_zerocopy/model_wrappers.py"],
    otherwise: "measure without it",
};

/// The folder with the packages of the examples.
pub(crate) fn examples() -> Result<PathBuf> {
    EXAMPLES.cached()
}
