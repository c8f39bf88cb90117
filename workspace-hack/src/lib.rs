//! Empty library: this package consists of its manifest, which selects features of dependencies.
