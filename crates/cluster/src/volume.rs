//! Volumes of a pod whose files are tokens, and where its containers have them.

/// A volume whose files are tokens of the pod's service account (`projected`, with `serviceAccountToken` sources).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenVolume {
    /// Its name in the pod: a DNS label.
    pub name: String,
    /// Its tokens, each at a path of its own.
    pub tokens: Vec<ProjectedToken>,
}

/// A token of a [`TokenVolume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectedToken {
    /// Whom it is to be shown to. None: the issuer itself, as a cluster's API server has it.
    pub audience: Option<String>,
    /// Seconds that it lives: 600 at least, a day at most. Default: 3600.
    pub lifetime: u64,
    /// Its file in the volume: relative, and never outside it.
    pub path: String,
}

impl ProjectedToken {
    /// How long a token lives where nothing is said, in seconds.
    pub const LIFETIME: u64 = 60 * 60;
    /// The shortest life that can be asked for, in seconds: Kubernetes' own bound.
    pub const SHORTEST: u64 = 10 * 60;
    /// The longest life that one is given, in seconds. Whoever asks for more gets this much, as from Kubernetes.
    pub const LONGEST: u64 = 24 * 60 * 60;
}

/// Where a container has a [`TokenVolume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume.
    pub volume: String,
    /// An absolute path without `..`.
    pub path: String,
}
