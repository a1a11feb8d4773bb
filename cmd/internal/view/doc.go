// Package view is the only code that prints.
//
// The rules of the terminal:
//
//   - stdout carries results (plans, tables, JSON), stderr everything else.
//   - Plain lines are the design: one line for each event that matters. On a
//     terminal one more line below them shows what runs now; it is redrawn at
//     most five times a second and gone when the command ends.
//   - Meaning is never carried by colour alone: every symbol has its word, and
//     an ASCII form.
//   - Errors are lower case and say what, where, what is safe, and what to type
//     next. Hints can be pasted.
//   - Control characters in what hosts and Nix print are removed.
//
// Everything is rendered from two structs, the plan and the fold of a run, and
// from one stream of records, so that text, JSON and Markdown cannot disagree.
package view
