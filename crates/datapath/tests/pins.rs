//! What an earlier process left in the folder of the pins.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use signet_abi::ABI_VERSION;
use signet_datapath::{Datapath, Error, Options};

/// A folder on a BPF file system, gone with the test.
struct Pins(PathBuf);

impl Pins {
    /// None, said loudly, where there is no such file system.
    fn new(name: &str) -> Option<Self> {
        let folder = Path::new("/sys/fs/bpf").join(format!("signet-test-{name}-{}", std::process::id()));
        if !nix::unistd::Uid::effective().is_root() || fs::create_dir(&folder).is_err() {
            println!("SKIPPED: needs root and a BPF file system at /sys/fs/bpf");
            return None;
        }
        Some(Self(folder))
    }

    fn load(&self) -> Result<Datapath, Error> {
        Datapath::load(&Options { pins: Some(self.0.clone()), ..Options::default() })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn maps_of_another_layout_are_refused_with_words_on_what_to_do() {
    let Some(pins) = Pins::new("layout") else { return };
    drop(pins.load().unwrap());
    drop(pins.load().unwrap());
    let layout = pins.0.join(format!("layout-{ABI_VERSION}"));
    for other in [None, Some(ABI_VERSION + 1)] {
        fs::remove_dir(&layout).unwrap();
        let other = other.map(|version| pins.0.join(format!("layout-{version}")));
        other.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let before = fs::read_dir(pins.0.join("maps")).unwrap().count();
        let refused = pins.load().err().unwrap().to_string();
        assert!(
            refused.contains("another version of Signet") && refused.contains("signet cleanup"),
            "{refused}"
        );
        assert!(refused.contains(pins.0.to_str().unwrap()), "{refused}");
        assert_eq!(fs::read_dir(pins.0.join("maps")).unwrap().count(), before);
        assert!(!layout.exists());
        fs::create_dir(&layout).unwrap();
    }
}
