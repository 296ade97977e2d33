//! What audited policies would have denied: one line per subject, peer, port and rule, kept across restarts.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use signet_flow::{extension_of, flow::Flow};

/// Lines that are kept; beyond that the one that was seen longest ago goes.
const MAX_LINES: usize = 10_000;
/// Hubble's number of the verdict `AUDIT`.
const AUDIT: i32 = signet_flow::flow::Verdict::Audit as i32;

/// What would have been denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WouldDeny {
    /// The pod whose policy it is, `namespace/pod`.
    pub subject: String,
    /// `ingress` or `egress`, seen from the subject.
    pub direction: String,
    /// The other end: `namespace/pod`, or an address.
    pub peer: String,
    /// The protocol, as in `TCP`.
    pub protocol: String,
    /// The destination port, or the ICMP type.
    pub port: u32,
    /// `Kind namespace/name rule` of the rule that would deny.
    pub rule: String,
    /// The reason it would be denied for.
    pub reason: String,
}

/// How often, and when. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The first flow.
    pub first_seen: String,
    /// The last flow.
    pub last_seen: String,
    /// How many flows.
    pub count: u64,
}

/// One line, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What would have been denied.
    #[serde(flatten)]
    pub what: WouldDeny,
    /// How often, and when.
    #[serde(flatten)]
    pub seen: Seen,
}

/// The ledger of a node.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    lines: BTreeMap<WouldDeny, Seen>,
    changed: bool,
    /// Whether it could not be written the last time.
    failed: bool,
}

impl Ledger {
    /// The ledger in `folder`, with what an earlier run left in it. A file that cannot be read is set aside.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("audit.json");
        let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<Vec<Line>>(&text)?));
        let stored = read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                set_aside(&path, &error);
            }
            vec![]
        });
        let lines = stored.into_iter().map(|l| (l.what, l.seen)).collect();
        Self { path, lines, changed: false, failed: false }
    }

    /// Takes note of a flow, if its verdict is `AUDIT`.
    pub fn note(&mut self, flow: &Flow, time: &str) {
        if flow.verdict != AUDIT {
            return;
        }
        let seen = self.lines.entry(would_deny(flow)).or_insert_with(|| Seen {
            first_seen: time.to_owned(),
            last_seen: time.to_owned(),
            count: 0,
        });
        time.clone_into(&mut seen.last_seen);
        if seen.last_seen < seen.first_seen {
            // the clock was set back
            time.clone_into(&mut seen.first_seen);
        }
        seen.count += 1;
        self.changed = true;
        if self.lines.len() > MAX_LINES {
            let oldest = self
                .lines
                .iter()
                .min_by(|a, b| a.1.last_seen.cmp(&b.1.last_seen))
                .map(|(what, _)| what.clone());
            oldest.and_then(|what| self.lines.remove(&what));
        }
    }

    /// All lines.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.iter().map(|(what, seen)| Line { what: what.clone(), seen: seen.clone() }).collect()
    }

    /// Writes the ledger down if it changed since it was written last. Says when that begins to fail, and when it works
    /// again; the next call tries again.
    pub fn store(&mut self) {
        if !self.changed {
            return;
        }
        match self.write() {
            Err(error) if !self.failed => {
                tracing::warn!(%error, "the audit ledger could not be stored; it is tried again");
            }
            Ok(()) if self.failed => tracing::warn!("the audit ledger is stored again"),
            Ok(()) | Err(_) => {}
        }
        self.failed = self.changed;
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let next = self.path.with_extension("next");
        fs::write(&next, serde_json::to_vec(&self.lines()).map_err(io::Error::other)?)?;
        fs::rename(next, &self.path)?;
        self.changed = false;
        Ok(())
    }
}

fn set_aside(path: &Path, error: &io::Error) {
    let aside = path.with_extension("broken");
    // what was set aside before, be it a file or a folder: one does not take the other's place
    let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir_all(&aside));
    let moved = fs::rename(path, &aside);
    let aside = moved.map_or_else(|e| format!("nowhere: {e}"), |()| aside.display().to_string());
    tracing::warn!(%error, aside, "the audit ledger was unreadable and is set aside");
}

fn would_deny(flow: &Flow) -> WouldDeny {
    use signet_flow::flow::{TrafficDirection, layer4::Protocol};

    let egress = flow.traffic_direction == TrafficDirection::Egress as i32;
    // a reply runs against the direction that policy was asked about
    let from_subject = egress != flow.reply;
    let (source, destination) = (end(flow, true), end(flow, false));
    let (subject, peer) = if from_subject { (source, destination) } else { (destination, source) };
    let forward = |source: u32, destination: u32| if flow.reply { source } else { destination };
    let (protocol, port) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(t)) => ("TCP", forward(t.source_port, t.destination_port)),
        Some(Protocol::Udp(u)) => ("UDP", forward(u.source_port, u.destination_port)),
        Some(Protocol::Sctp(s)) => ("SCTP", forward(s.source_port, s.destination_port)),
        Some(Protocol::IcmPv4(i)) => ("ICMP", i.r#type),
        Some(Protocol::IcmPv6(i)) => ("ICMPv6", i.r#type),
        _ => ("other", 0),
    };
    let extension = extension_of(flow).unwrap_or_default();
    let rule = extension.rule.map(|r| format!("{} {}/{} {}", r.kind, r.namespace, r.name, r.rule));
    WouldDeny {
        subject,
        direction: if egress { "egress" } else { "ingress" }.to_owned(),
        peer,
        protocol: protocol.to_owned(),
        port,
        rule: rule.unwrap_or_default(),
        reason: extension.reason,
    }
}

/// `namespace/pod` of an end, or its address.
fn end(flow: &Flow, source: bool) -> String {
    let endpoint = if source { &flow.source } else { &flow.destination };
    match endpoint.as_ref().filter(|e| !e.pod_name.is_empty()) {
        Some(e) => format!("{}/{}", e.namespace, e.pod_name),
        None => {
            let ip = flow.ip.clone().unwrap_or_default();
            if source { ip.source } else { ip.destination }
        }
    }
}

#[cfg(test)]
mod tests {
    use signet_flow::flow::{Endpoint, TrafficDirection, Verdict};

    use super::*;

    fn flow(verdict: Verdict) -> Flow {
        let end =
            |pod: &str| Some(Endpoint { namespace: "a".into(), pod_name: pod.into(), ..Endpoint::default() });
        Flow {
            verdict: verdict.into(),
            traffic_direction: TrafficDirection::Ingress.into(),
            source: end("client"),
            destination: end("server"),
            ..Flow::default()
        }
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_a_line_that_was_not_seen_before_it_was_first_seen() {
        let mut ledger = Ledger::open(Path::new("/nonexistent"));
        for hour in ["08", "11", "05"] {
            ledger.note(&flow(Verdict::Audit), &format!("2026-01-01T{hour}:00:00Z"));
        }
        let seen = ledger.lines().remove(0).seen;
        assert_eq!((seen.first_seen.as_str(), seen.count), ("2026-01-01T05:00:00Z", 3));
        assert_eq!(seen.last_seen, "2026-01-01T05:00:00Z");
    }

    #[test]
    fn whatever_the_file_became_it_is_set_aside_and_the_ledger_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.json");
        let damages: [&dyn Fn(); 3] = [
            &|| fs::write(&file, "[{\"subject\":").unwrap(),
            &|| fs::write(&file, [0xff; 100]).unwrap(),
            &|| fs::create_dir(&file).unwrap(),
        ];
        for damage in damages {
            damage();
            let mut ledger = Ledger::open(folder.path());
            assert!(ledger.lines().is_empty());
            ledger.note(&flow(Verdict::Audit), "2026-01-01T00:00:00Z");
            ledger.store();
            assert_eq!(Ledger::open(folder.path()).lines().len(), 1);
            let aside = folder.path().join("audit.broken");
            assert!(aside.exists());
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn the_ledger_survives_a_restart_and_goes_on_counting() {
        let folder = std::env::temp_dir().join(format!("signet-ledger-{}", std::process::id()));
        let mut ledger = Ledger::open(&folder);
        ledger.note(&flow(Verdict::Audit), "2026-01-01T00:00:00Z");
        ledger.note(&flow(Verdict::Forwarded), "2026-01-01T00:00:01Z");
        ledger.store();
        let mut again = Ledger::open(&folder);
        again.note(&flow(Verdict::Audit), "2026-01-02T00:00:00Z");
        let lines = again.lines();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].what.subject.as_str(), lines[0].what.peer.as_str()), ("a/server", "a/client"));
        assert_eq!(lines[0].seen.count, 2);
        assert_eq!(lines[0].seen.first_seen, "2026-01-01T00:00:00Z");
        assert_eq!(lines[0].seen.last_seen, "2026-01-02T00:00:00Z");
    }
}
