//! The least that a filter in WebAssembly can do to route a request: one header read, one written, without an SDK.
//!
//! It has no table: every key goes to one cluster. What the real filter costs beyond it is what can be saved at most.
//! `scripts/bench` builds it with rustc alone.
#![no_std]

use core::panic::PanicInfo;
use core::ptr::{null, null_mut};

const REQUEST_HEADERS: u32 = 0;
const CONTINUE: u32 = 0;

const KEY: &[u8] = b"x-route-key";
const STEERING: &[u8] = b"x-route-cluster";
const CLUSTER: &[u8] = b"plain-sandbox";

/// Where the host puts the value it is asked for. One value is alive at a time.
const ROOM: usize = 4096;
static mut VALUE: [u8; ROOM] = [0; ROOM];

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        length: usize,
        value: *mut *const u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(map: u32, name: *const u8, length: usize, value: *const u8, size: usize) -> u32;
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if size > ROOM {
        null_mut()
    } else {
        &raw mut VALUE as *mut u8
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_context: u32, _count: u32, _end: u32) -> u32 {
    let (mut value, mut size) = (null(), 0);
    // SAFETY: all pointers are to memory that lives until the call returns.
    unsafe {
        let found = proxy_get_header_map_value(REQUEST_HEADERS, KEY.as_ptr(), KEY.len(), &mut value, &mut size);
        if found == 0 && size > 0 {
            proxy_replace_header_map_value(
                REQUEST_HEADERS,
                STEERING.as_ptr(),
                STEERING.len(),
                CLUSTER.as_ptr(),
                CLUSTER.len(),
            );
        }
    }
    CONTINUE
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
