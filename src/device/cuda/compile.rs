//! CUDA C++ to code for a card, by NVIDIA's compiler (NVRTC) in this process.
//!
//! What is made is a CUBIN for the very architecture of the card, not PTX: the driver need not compile again at
//! every start, and it takes what a newer compiler of its generation made, which of PTX it does not. Only for a
//! card that is newer than the compiler it is PTX, of the newest architecture that both know.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::sys;

/// The compiler of this machine.
pub(super) struct Compiler {
    version: (c_int, c_int),
    /// The architectures it knows, as 90 for `sm_90`.
    known: Vec<c_int>,
}

/// What is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The compiler's option.
    option: String,
    /// Whether the result is a CUBIN.
    is_binary: bool,
}

fn checked(result: sys::nvrtcResult, step: &str) -> Result<(), String> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        error => Err(format!("the run-time compiler (libnvrtc) failed to {step}: {error:?}")),
    }
}

impl Compiler {
    /// The error is the reason why there is none.
    pub(super) fn find() -> Result<Self, String> {
        // SAFETY: looks for a library and runs what the library runs when loaded: NVIDIA's compiler,
        // which the operator installed.
        if !unsafe { sys::is_culib_present() } {
            return Err("the run-time compiler (libnvrtc) is not installed".into());
        }
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: both write the numbers they are given.
        unsafe {
            checked(sys::nvrtcVersion(&mut major, &mut minor), "say its version")?;
            checked(sys::nvrtcGetNumSupportedArchs(&mut count), "say what it knows")?;
        }
        let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for as many as it said.
        checked(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }, "say what it knows")?;
        Ok(Self { version: (major, minor), known })
    }

    /// What to compile for, for a card of this compute capability.
    pub(super) fn target(&self, (major, minor): (i32, i32)) -> Result<Target, String> {
        let wanted = 10 * major + minor;
        let older = self.known.iter().filter(|known| **known <= wanted).max();
        let Some(newest) = older else {
            return Err(format!("the run-time compiler knows no cards as old as sm_{wanted}"));
        };
        let is_binary = *newest == wanted;
        let kind = if is_binary { "sm" } else { "compute" };
        Ok(Target { option: format!("--gpu-architecture={kind}_{newest}"), is_binary })
    }

    /// What an image depends on besides the source.
    pub(super) fn identity(&self, target: &Target) -> String {
        format!(
            "NVRTC {}.{} {} {}",
            self.version.0, self.version.1, target.option, target.is_binary
        )
    }

    /// The image of a source; the error has the compiler's words.
    pub(super) fn compile(&self, source: &str, target: &Target) -> Result<Vec<u8>, String> {
        let program = Program::new(source)?;
        let option = CString::new(target.option.as_str()).map_err(|error| error.to_string())?;
        // SAFETY: one option, which lives until the call returns.
        let result = unsafe { sys::nvrtcCompileProgram(program.0, 1, &option.as_ptr()) };
        if let Err(error) = checked(result, "compile") {
            return Err(format!("{error}: {}", program.log()));
        }
        match target.is_binary {
            true => program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
            false => program.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
        }
    }
}

/// A program of the compiler.
struct Program(sys::nvrtcProgram);

type SizeOf = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Copy = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

impl Program {
    fn new(source: &str) -> Result<Self, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let (mut program, none) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: the source lives until the call returns, which copies it; there are no headers.
        let result = unsafe {
            let headers = (std::ptr::null(), std::ptr::null());
            sys::nvrtcCreateProgram(&mut program, source.as_ptr(), none, 0, headers.0, headers.1)
        };
        checked(result, "take a source").map(|()| Self(program))
    }

    /// What of a program has this size and is copied so.
    fn bytes(&self, size_of: SizeOf, copy: Copy) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the program is there until it is dropped.
        checked(unsafe { size_of(self.0, &mut size) }, "say a size")?;
        let mut bytes = vec![0u8; size];
        // SAFETY: there is room for as many bytes as it said.
        checked(unsafe { copy(self.0, bytes.as_mut_ptr().cast()) }, "give what it made")?;
        Ok(bytes)
    }

    fn log(&self) -> String {
        let log = self.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog);
        String::from_utf8_lossy(&log.unwrap_or_default()).trim_end_matches('\0').trim().into()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by this value, and used by nobody else.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_its_own_code_and_a_newer_one_portable_code() {
        let compiler = Compiler { version: (13, 0), known: vec![75, 80, 86, 90, 100] };
        let target = |capability| {
            compiler.target(capability).map(|target| (target.option, target.is_binary))
        };
        let option = |name: &str| format!("--gpu-architecture={name}");
        assert_eq!(target((9, 0)), Ok((option("sm_90"), true)));
        assert_eq!(target((10, 0)), Ok((option("sm_100"), true)));
        assert_eq!(target((8, 9)), Ok((option("compute_86"), false)));
        assert_eq!(target((12, 0)), Ok((option("compute_100"), false)));
        assert!(target((7, 0)).is_err());
    }

    #[test]
    fn what_does_not_compile_says_why() {
        match Compiler::find() {
            Ok(compiler) => {
                let target = compiler.target((9, 0)).unwrap();
                let error = compiler.compile("not CUDA", &target).unwrap_err();
                assert!(error.contains("error"), "{error}");
            }
            Err(reason) => eprintln!("skipped: {reason}"),
        }
    }
}
