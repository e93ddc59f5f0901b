// SPDX-License-Identifier: Apache-2.0
//! The command line, which the driver writes to the CDI spec: checked once, so that no other file checks a path or a name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Options of each kind. A driver has about 40 libraries.
const MAX_OPTIONS: usize = 256;

/// `NAME_MAX` of Linux.
const MAX_NAME_BYTES: usize = 255;

/// `PATH_MAX` of Linux.
const MAX_PATH_BYTES: usize = 4095;

/// What the hook does in one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Directories of the container with the libraries, in the order that they are searched.
    pub library_dirs: Vec<PathBuf>,
    /// SONAMEs; each library is mounted under it in at least one of the directories.
    pub libraries: Vec<OsString>,
    pub symlinks: Vec<Symlink>,
    /// The procfs file with the parameters of the NVIDIA driver, relative to `/proc`.
    pub params: Option<PathBuf>,
}

/// A symbolic link of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symlink {
    /// Content of the link.
    pub target: PathBuf,
    /// Directory of the container.
    pub dir: PathBuf,
    pub name: OsString,
}

impl Symlink {
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }
}

/// The command line is not one that the driver writes.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error("`{}` is no option of this program", .0.display())]
    Unknown(OsString),
    #[error("option {option} is given more than {MAX_OPTIONS} times")]
    TooMany { option: &'static str },
    #[error("`{}` is not an absolute path without `.`, `..` and doubled slashes", .0.display())]
    Path(OsString),
    #[error("`{}` is not a file name", .0.display())]
    FileName(OsString),
    #[error("`{}` is not TARGET::LINK", .0.display())]
    Symlink(OsString),
    #[error("`{}` is not a file below /proc", .0.display())]
    Params(OsString),
}

impl Arguments {
    /// Every argument has the form `--option=value`, so that none depends on its position.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let mut parsed = Self::default();
        for argument in arguments {
            if let Some(dir) = value(&argument, "--library-dir=") {
                push(&mut parsed.library_dirs, absolute(dir)?, "--library-dir")?;
            } else if let Some(library) = value(&argument, "--library=") {
                push(&mut parsed.libraries, file_name(library)?, "--library")?;
            } else if let Some(link) = value(&argument, "--symlink=") {
                push(&mut parsed.symlinks, symlink(link)?, "--symlink")?;
            } else if let Some(params) = value(&argument, "--mask-params=") {
                parsed.params = Some(below_proc(params)?);
            } else {
                return Err(ArgumentError::Unknown(argument));
            }
        }
        Ok(parsed)
    }
}

fn value<'a>(argument: &'a OsStr, option: &str) -> Option<&'a OsStr> {
    argument.as_bytes().strip_prefix(option.as_bytes()).map(OsStr::from_bytes)
}

fn push<T>(values: &mut Vec<T>, value: T, option: &'static str) -> Result<(), ArgumentError> {
    if values.len() >= MAX_OPTIONS {
        return Err(ArgumentError::TooMany { option });
    }
    values.push(value);
    Ok(())
}

/// A path whose text is the same after normalization. `/` alone is not one.
fn absolute(path: &OsStr) -> Result<PathBuf, ArgumentError> {
    let mut normal = PathBuf::from("/");
    normal.extend(Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))));
    let is_normal = normal.as_os_str() == path && path.len() > 1 && path.len() <= MAX_PATH_BYTES;
    let is_long = normal.components().any(|part| part.as_os_str().len() > MAX_NAME_BYTES);
    if is_normal && !is_long { Ok(normal) } else { Err(ArgumentError::Path(path.to_owned())) }
}

fn file_name(name: &OsStr) -> Result<OsString, ArgumentError> {
    let bytes = name.as_bytes();
    let is_name =
        !bytes.is_empty() && bytes.len() <= MAX_NAME_BYTES && !bytes.starts_with(b".") && !bytes.contains(&b'/');
    if is_name { Ok(name.to_owned()) } else { Err(ArgumentError::FileName(name.to_owned())) }
}

/// Links below directories that every runtime mounts cannot be made, since the hook changes the root filesystem only.
fn symlink(text: &OsStr) -> Result<Symlink, ArgumentError> {
    let invalid = || ArgumentError::Symlink(text.to_owned());
    let bytes = text.as_bytes();
    let at = bytes.windows(2).position(|pair| pair == b"::").ok_or_else(invalid)?;
    let (target, rest) = bytes.split_at_checked(at).ok_or_else(invalid)?;
    let link = absolute(OsStr::from_bytes(rest.strip_prefix(b"::").ok_or_else(invalid)?))?;
    let (Some(dir), Some(name)) = (link.parent(), link.file_name()) else { return Err(invalid()) };
    let is_mounted = ["/dev", "/proc", "/sys"].iter().any(|mounted| link.starts_with(mounted));
    if is_mounted || target.is_empty() || target.len() > MAX_PATH_BYTES {
        return Err(invalid());
    }
    Ok(Symlink { target: OsStr::from_bytes(target).into(), dir: dir.to_owned(), name: name.to_owned() })
}

fn below_proc(path: &OsStr) -> Result<PathBuf, ArgumentError> {
    let relative = absolute(path)?.strip_prefix("/proc").map(Path::to_owned).unwrap_or_default();
    // The program mounts on the directory for a moment, and `/proc` itself must stay as it is.
    let is_below_dir = relative.components().count() > 1;
    if is_below_dir { Ok(relative) } else { Err(ArgumentError::Params(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, ArgumentError> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn every_option_is_read() {
        let arguments = [
            "--library-dir=/usr/lib/x86_64-linux-gnu",
            "--library-dir=/usr/lib64",
            "--library=libcuda.so.1",
            "--library=libnvidia-ml.so.1",
            "--symlink=libcuda.so.1::/usr/lib64/libcuda.so",
            "--mask-params=/proc/driver/nvidia/params",
        ];
        let symlink = Symlink { target: "libcuda.so.1".into(), dir: "/usr/lib64".into(), name: "libcuda.so".into() };
        let expected = Arguments {
            library_dirs: vec!["/usr/lib/x86_64-linux-gnu".into(), "/usr/lib64".into()],
            libraries: vec!["libcuda.so.1".into(), "libnvidia-ml.so.1".into()],
            symlinks: vec![symlink],
            params: Some("driver/nvidia/params".into()),
        };
        assert_eq!(parse(&arguments).unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), Arguments::default());
    }

    #[test]
    fn what_the_driver_does_not_write_is_refused() {
        let long = format!("--library={}", "a".repeat(256));
        for argument in [
            "",
            "--help",
            "--library",
            "--library=",
            "--library=a/b",
            "--library=..",
            &long,
            "--library-dir=",
            "--library-dir=/",
            "--library-dir=usr/lib",
            "--library-dir=/usr/../etc",
            "--library-dir=/usr/./lib",
            "--library-dir=/usr//lib",
            "--library-dir=/usr/lib/",
            "--symlink=a",
            "--symlink=::/a",
            "--symlink=a::b",
            "--symlink=a::/",
            "--symlink=a::/b/../c",
            "--symlink=../card0::/dev/dri/by-path/a",
            "--symlink=a::/proc/b",
            "--mask-params=",
            "--mask-params=/proc",
            "--mask-params=/proc/version",
            "--mask-params=/process/driver/params",
            "--mask-params=/proc/../etc/passwd",
        ] {
            assert!(parse(&[argument]).is_err(), "{argument}");
        }
    }

    #[test]
    fn the_number_of_options_is_bounded() {
        let most = vec!["--library=liba.so.1"; MAX_OPTIONS];
        assert!(parse(&most).is_ok());
        assert!(parse(&[most, vec!["--library=liba.so.1"]].concat()).is_err());
    }
}
