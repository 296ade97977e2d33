//! Structs of another build, read by the names of their fields: where they are comes from the type information that the
//! kernel keeps with a map.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    ops::Range,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use libbpf_rs::{
    MapHandle,
    btf::{
        Btf, BtfType, HasSize,
        types::{Array, Int, MemberAttr, Struct},
    },
};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{attach::raw_types, error::Error};

/// The type information of a map, also as a file: libbpf takes it as one.
pub(crate) struct Types {
    file: File,
    types: Btf<'static>,
}

impl Types {
    /// Those that a map was made with.
    pub(crate) fn of(name: &'static str, map: &MapHandle) -> Result<Self, Error> {
        let failed = |source: std::io::Error| Error::Map { map: name, source: source.into() };
        let fd = memfd_create("signet-types", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.into()))?;
        let mut file = File::from(fd);
        file.write_all(&raw_types(map).map_err(failed)?).map_err(failed)?;
        let types = Btf::from_path(path_of(&file)).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { file, types })
    }

    /// Where it can be read while this is there.
    pub(crate) fn path(&self) -> PathBuf {
        path_of(&self.file)
    }

    /// The shape of a struct; none where there is none of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<Shape> {
        Shape::of(&self.types, name)
    }
}

fn path_of(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// Where the fields of a struct are: numbers and bytes, by their names; those of arrays and structs in it by their paths.
#[derive(Debug, Clone)]
pub struct Shape {
    size: usize,
    fields: BTreeMap<String, Range<usize>>,
}

impl Shape {
    /// So many bytes, with these fields: names start with a dot.
    pub fn new(size: usize, fields: BTreeMap<String, Range<usize>>) -> Self {
        Self { size, fields }
    }

    pub(crate) fn of(types: &Btf<'_>, name: &str) -> Option<Self> {
        let all = types.type_by_name::<Struct<'_>>(name)?;
        let mut shape = Self { size: 0, fields: BTreeMap::new() };
        shape.size = shape.add(types, *all, "", 0)?;
        Some(shape)
    }

    /// Adds what is in a type at an offset; returns its size.
    fn add(&mut self, types: &Btf<'_>, ty: BtfType<'_>, path: &str, at: usize) -> Option<usize> {
        let ty = ty.skip_mods_and_typedefs();
        if let Ok(all) = Struct::try_from(ty) {
            for member in all.iter() {
                let MemberAttr::Normal { offset } = member.attr else { continue };
                let name = member.name.map(|name| name.to_string_lossy()).unwrap_or_default();
                self.add(
                    types,
                    types.type_by_id(member.ty)?,
                    &format!("{path}.{name}"),
                    at + offset as usize / 8,
                );
            }
            return Some(all.size());
        }
        if let Ok(array) = Array::try_from(ty) {
            let mut size = 0;
            for index in 0..array.capacity() {
                size += self.add(types, array.contained_type(), &format!("{path}[{index}]"), at + size)?;
            }
            return Some(size);
        }
        let size = usize::from(Int::try_from(ty).ok()?.bits) / 8;
        self.fields.insert(path.to_owned(), at..at + size);
        Some(size)
    }

    /// A number of the struct, by its field's name.
    pub fn number(&self, field: &str, bytes: &[u8]) -> Option<u64> {
        let value = bytes.get(self.fields.get(&format!(".{field}"))?.clone())?;
        let mut wide = [0; 8];
        wide.get_mut(..value.len())?.copy_from_slice(value);
        Some(u64::from_le_bytes(wide))
    }

    /// The same in another shape: fields go by their names, what one of the two does not have is left out.
    pub fn translate(&self, bytes: &[u8], to: &Self) -> Vec<u8> {
        let mut out = vec![0; to.size];
        for (name, place) in &to.fields {
            let from = self.fields.get(name).and_then(|range| bytes.get(range.clone()));
            let (Some(from), Some(into)) = (from, out.get_mut(place.clone())) else { continue };
            let both = from.len().min(into.len());
            into[..both].copy_from_slice(&from[..both]);
        }
        out
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }
}
