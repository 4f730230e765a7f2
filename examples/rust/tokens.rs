//! Streams the token ids of an answer, through libspecc. Rust needs no crate for it.
//!
//! From the root of the repository, after libspecc was built in `build/c` (see runtimes/c/README.md):
//!
//!     rustc --edition 2021 -D warnings -L build/c -o tokens examples/rust/tokens.rs
//!     export LD_LIBRARY_PATH=build/c SPECC_ONNXRUNTIME="${SPECC_ONNXRUNTIME:-/path/to/libonnxruntime.so}"
//!     ./tokens model.specc prompt-lookup 32 1 5 9
//!
//! With libspecc installed under /usr/local, leave out `-L` and LD_LIBRARY_PATH.

use std::error::Error;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::io::{stdout, Stdout, Write};
use std::{env, mem, process, ptr, slice};

/// What `specc_stats` of specc.h is.
#[repr(C)]
struct Stats {
    recipe: [c_char; 64],
    new_tokens: usize,
    drafts: usize,
    drafted: usize,
    accepted: usize,
    target_calls: usize,
    prefill_seconds: f64,
    seconds: f64,
    mean_acceptance_length: f64,
    error: [c_char; 512],
}

type OnTokens = extern "C" fn(user: *mut c_void, tokens: *const i64, count: usize) -> c_int;

#[link(name = "specc")]
#[rustfmt::skip]
extern "C" {
    fn specc_error() -> *const c_char;
    fn specc_open(path: *const c_char, options: *const c_void, model: *mut *mut c_void) -> c_int;
    fn specc_close(model: *mut c_void);
    fn specc_session_open(model: *mut c_void, session: *mut *mut c_void) -> c_int;
    fn specc_session_close(session: *mut c_void);
    fn specc_generate(session: *mut c_void, prompt: *const i64, prompt_tokens: usize, recipe: *const c_char,
                      max_new_tokens: usize, on_tokens: OnTokens, user: *mut c_void, stats: *mut Stats) -> c_int;
}

/// A pointer of libspecc, and the function that frees it.
struct Handle(*mut c_void, unsafe extern "C" fn(*mut c_void));

impl Drop for Handle {
    fn drop(&mut self) {
        unsafe { (self.1)(self.0) }
    }
}

/// Turns the status of a function of libspecc into its error text.
fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(specc_error()) }.to_string_lossy().into_owned())
}

/// Prints the tokens of a step. A number other than 0 ends the answer: nobody reads the output any more.
extern "C" fn print(user: *mut c_void, tokens: *const i64, count: usize) -> c_int {
    let (output, tokens) = unsafe { (&mut *user.cast::<Stdout>(), slice::from_raw_parts(tokens, count)) };
    let line: String = tokens.iter().map(|id| format!("{id} ")).collect();
    c_int::from(output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err())
}

fn number<T: std::str::FromStr>(text: &String) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [bundle, recipe, count, ids @ ..] = arguments else {
        return Err("usage: tokens BUNDLE RECIPE MAX_NEW_TOKENS TOKEN_ID...".into());
    };
    let (bundle, recipe) = (CString::new(bundle.as_str())?, CString::new(recipe.as_str())?);
    let prompt = ids.iter().map(number).collect::<Result<Vec<i64>, _>>()?;
    let (ids, length, count) = (prompt.as_ptr(), prompt.len(), number(count)?);
    let (mut output, mut stats): (Stdout, Stats) = (stdout(), unsafe { mem::zeroed() });
    let user = (&raw mut output).cast();
    let mut model = Handle(ptr::null_mut(), specc_close);
    let mut session = Handle(ptr::null_mut(), specc_session_close); // Rust frees it first: the model must outlive it.
    unsafe {
        check(specc_open(bundle.as_ptr(), ptr::null(), &mut model.0))?;
        check(specc_session_open(model.0, &mut session.0))?;
        check(specc_generate(session.0, ids, length, recipe.as_ptr(), count, print, user, &mut stats))?;
    }
    let recipe = unsafe { CStr::from_ptr(stats.recipe.as_ptr()) }.to_string_lossy();
    let (tokens, calls, length) = (stats.new_tokens, stats.target_calls, stats.mean_acceptance_length);
    writeln!(output, "\n{recipe}: {tokens} tokens, {calls} target calls, mean acceptance length {length:.2}")?;
    Ok(())
}

fn main() {
    if let Err(error) = run(&env::args().skip(1).collect::<Vec<_>>()) {
        eprintln!("error: {error}");
        process::exit(2);
    }
}
