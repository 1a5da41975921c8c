//! The JSON form of `routing`: refused with problems, or a table that decides. What is written out again is the same
//! table.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sidetrack_fuzz::{Everywhere, decide_twice};
use sidetrack_routing::{InvalidTable, RouteTable, decode, wire};

fuzz_target!(|data: &[u8]| {
    let table = match RouteTable::from_configuration(data.to_vec()) {
        Ok(table) => table,
        Err(InvalidTable::Problems(problems)) => {
            assert!(!problems.is_empty());
            assert!(!InvalidTable::Problems(problems).to_string().is_empty());
            return;
        }
        Err(_) => return,
    };
    // A table by chance; the target `table` is for those.
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let routing = decode(&value, |routing: &wire::Routing| Ok(routing.clone())).unwrap();
    let again = RouteTable::from_configuration(serde_json::to_vec(&routing).unwrap()).unwrap();
    assert!(again == table, "another table when written out again");
    for rule in routing.rules.iter().take(8) {
        let key = rule.route_key.as_str();
        let path = format!("/api/v1?k={key}");
        for value in [key.to_owned(), format!("k={key}")] {
            let values: [&[u8]; 2] = [value.as_bytes(), b"application/json"];
            for now in [0, 1_900_000_000_000] {
                decide_twice(
                    &table,
                    &Everywhere {
                        path: path.as_bytes(),
                        values: &values,
                        now,
                    },
                );
            }
        }
    }
});
