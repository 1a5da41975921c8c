// The reverse proxy that scripts/bench compares with; see main.go. It needs the standard library alone.
module sidetrack/tests/bench/reverseproxy

go 1.26.0
