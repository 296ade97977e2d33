//! libFuzzer over one target: `SIGNET_FUZZ_TARGET` names it, `SIGNET_FUZZ_SEEDS` is a folder that its seeds go to first.
//!
//! One program for all targets: what takes long is building it.
#![no_main]
#![allow(clippy::panic, reason = "it is how libFuzzer is told")]

use std::{cell::RefCell, env, fs, io, panic, path::PathBuf, thread};

use libfuzzer_sys::fuzz_target;
use signet_fuzz::{Property, Target};

thread_local! {
    static PROPERTY: RefCell<Option<Property>> = const { RefCell::new(None) };
}

fuzz_target!(init: start(), |bytes: &[u8]| {
    PROPERTY.with_borrow_mut(|property| {
        if let Some(Err(what)) = property.as_mut().map(|property| property(bytes)) {
            panic!("{what}");
        }
    });
});

fn start() {
    let name = env::var("SIGNET_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = Target::ALL.into_iter().find(|target| target.name() == name) else {
        panic!("SIGNET_FUZZ_TARGET names none of {:?}", Target::ALL.map(Target::name));
    };
    match target.property() {
        Ok(Some(property)) => PROPERTY.set(Some(property)),
        Ok(None) => panic!("{name} needs root to load programs into the kernel"),
        Err(error) => panic!("{error}"),
    }
    if let Err(error) = env::var_os("SIGNET_FUZZ_SEEDS").map_or(Ok(()), |to| seeds(target, &to.into())) {
        panic!("seeds: {error}");
    }
    // where a panic is caught on purpose it ends nothing: that of the library that reads expressions, on its own thread
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() != Some("cel") {
            end(info);
        }
    }));
}

fn seeds(target: Target, folder: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let seeds = target.seeds().into_iter().enumerate();
    seeds.map(|(at, seed)| fs::write(folder.join(format!("seed-{at}")), seed)).collect()
}
