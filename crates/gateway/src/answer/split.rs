//! An answer's bytes → the JSON objects in it, and what is between them.
//!
//! An answer is one object, an array of them, or events that each hold one: in all three, the objects are what is between a `{` at
//! the top and its `}`. However it is cut into chunks, the same objects are found (`however_an_answer_is_cut_its_objects_are_the_same`).

use memchr::{memchr2, memchr3};

/// Bytes of one object; a larger one is not kept.
pub(crate) const MAX_OBJECT: usize = 8 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'b> {
    /// What is around objects: the frame of events, or of an array.
    Between(&'b [u8]),
    /// All of an object.
    Object(&'b [u8]),
    /// An object that is larger than [`MAX_OBJECT`], in parts; it is not looked into.
    Oversized(&'b [u8]),
}

/// Finds objects.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// What came of an object that goes on.
    object: Vec<u8>,
    depth: usize,
    place: Place,
    /// Whether the object is too large to be kept.
    is_oversized: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Plain,
    Text,
    Escaped,
}

impl Splitter {
    /// What there is of an object that did not end.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.object
    }

    /// Reads on, and tells what is found, in order.
    pub(crate) fn read(&mut self, bytes: &[u8], mut found: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.depth == 0 {
                let start = memchr::memchr(b'{', rest).unwrap_or(rest.len());
                if start > 0 {
                    found(Piece::Between(&rest[..start]));
                }
                rest = &rest[start..];
                if !rest.is_empty() {
                    self.depth = 1;
                    rest = self.within(rest, 1, &mut found);
                }
            } else {
                rest = self.within(rest, 0, &mut found);
            }
        }
    }

    /// Reads an object on from `at`; the rest is what is behind it.
    fn within<'b>(&mut self, bytes: &'b [u8], mut at: usize, found: &mut impl FnMut(Piece<'_>)) -> &'b [u8] {
        while self.depth > 0 {
            let Some(next) = self.next(bytes, at) else {
                self.keep(bytes, found);
                return &[];
            };
            at = next;
        }
        let (part, rest) = bytes.split_at(at);
        self.end(part, found);
        rest
    }

    /// Behind the next byte that matters, if there is one.
    fn next(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match self.place {
            Place::Escaped => {
                self.place = Place::Text;
                Some(at + 1)
            }
            Place::Text => {
                let found = memchr2(b'"', b'\\', rest)?;
                self.place = if rest[found] == b'"' { Place::Plain } else { Place::Escaped };
                Some(at + found + 1)
            }
            Place::Plain => {
                let found = memchr3(b'"', b'{', b'}', rest)?;
                match rest[found] {
                    b'"' => self.place = Place::Text,
                    b'{' => self.depth += 1,
                    _ => self.depth -= 1,
                }
                Some(at + found + 1)
            }
        }
    }

    fn keep(&mut self, part: &[u8], found: &mut impl FnMut(Piece<'_>)) {
        if !self.is_oversized && self.object.len() + part.len() > MAX_OBJECT {
            self.is_oversized = true;
            found(Piece::Oversized(&std::mem::take(&mut self.object)));
        }
        match self.is_oversized {
            true => found(Piece::Oversized(part)),
            false => self.object.extend_from_slice(part),
        }
    }

    fn end(&mut self, part: &[u8], found: &mut impl FnMut(Piece<'_>)) {
        if self.object.is_empty() && !self.is_oversized && part.len() <= MAX_OBJECT {
            return found(Piece::Object(part));
        }
        self.keep(part, found);
        let object = std::mem::take(&mut self.object);
        if !std::mem::take(&mut self.is_oversized) {
            found(Piece::Object(&object));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Neighbouring bytes of one kind put together: how they were cut does not matter.
    fn pieces(text: &[u8], cuts: &[usize]) -> Vec<(bool, Vec<u8>)> {
        let (mut splitter, mut all) = (Splitter::default(), Vec::<(bool, Vec<u8>)>::new());
        let mut rest = text;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (chunk, behind) = rest.split_at(cut.min(rest.len()));
            rest = behind;
            splitter.read(chunk, |piece| match piece {
                Piece::Object(object) => all.push((true, object.to_vec())),
                Piece::Between(between) | Piece::Oversized(between) => match all.last_mut() {
                    Some((false, last)) => last.extend_from_slice(between),
                    _ => all.push((false, between.to_vec())),
                },
            });
        }
        all.push((true, splitter.rest().to_vec()));
        all
    }

    proptest! {
        #[test]
        fn however_an_answer_is_cut_its_objects_are_the_same(
            text in r#"(data: |\{|\}|"|\\|[|]|,|a|\r\n){0,60}"#,
            cuts in prop::collection::vec(0usize..9, 0..40),
        ) {
            prop_assert_eq!(pieces(text.as_bytes(), &cuts), pieces(text.as_bytes(), &[]));
        }

        #[test]
        fn nothing_is_lost_and_nothing_added(text in any::<Vec<u8>>(), cuts in prop::collection::vec(0usize..9, 0..40)) {
            let all: Vec<u8> = pieces(&text, &cuts).into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(all, text);
        }
    }

    #[test]
    fn objects_are_found_in_events_and_arrays() {
        let objects = |text: &str| -> Vec<String> {
            let found =
                pieces(text.as_bytes(), &[]).into_iter().filter(|(is, bytes)| *is && !bytes.is_empty());
            found.map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
        };
        assert_eq!(
            objects("data: {\"a\":{}}\r\n\r\ndata: {\"b\":\"}\"}\r\n\r\n"),
            ["{\"a\":{}}", "{\"b\":\"}\"}"]
        );
        assert_eq!(objects("[{\"a\":\"\\\"{\"},\n{}]"), ["{\"a\":\"\\\"{\"}", "{}"]);
        assert_eq!(objects("data: [DONE]\n\n"), [""; 0]);
    }

    #[test]
    fn an_object_that_is_too_large_is_passed_in_parts() {
        let text = format!("{{\"a\":\"{}\"}}{{}}", "x".repeat(MAX_OBJECT));
        let cuts = vec![1 << 20; 20];
        let all = pieces(text.as_bytes(), &cuts);
        assert_eq!(all.iter().filter(|(is, bytes)| *is && !bytes.is_empty()).count(), 1);
        assert_eq!(all.into_iter().flat_map(|(_, bytes)| bytes).count(), text.len());
    }
}
