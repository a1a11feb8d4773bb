// Package notify holds the notifiers that ship with deployer. Each kind is a
// plugin of its own.
//
// webhook posts the event as JSON. It verifies TLS, always.
//
//   - With the secret "sign" a post carries
//     X-Deployer-Signature: t=UNIX,v1=HEX, where HEX is the HMAC-SHA256, under
//     that secret, of the digits of UNIX, a full stop and the body. A receiver
//     computes the same, compares in constant time and refuses old times.
//   - Idempotency-Key is the event's id, the same at every attempt.
//   - An answer of 5xx or 429, and a network that fails, are tried again until
//     shortly before the deadline of the call; any other answer is final, and a
//     redirection is not followed.
//   - No error and no delivery shows more of the URL than its host.
//
// file appends one line of JSON per event and syncs it before it answers.
package notify
