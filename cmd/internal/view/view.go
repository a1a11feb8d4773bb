package view

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"github.com/hbohlen/deployer/phases"
)

// Streams is where a command prints, and how.
type Streams struct {
	Out, Err io.Writer
	TTY      bool // stderr is a terminal: a live line may be drawn
	Color    bool
	ASCII    bool
	Width    int  // columns; 100 when it is not known
	Log      bool // stderr is no terminal: nothing is cut to fit
	Quiet    bool
	Verbose  bool
	Project  string // as -f named it; hints name it too

	mu   sync.Mutex
	live atomic.Pointer[live] // the line that has to make room first
}

// Options are the flags that decide how things look.
type Options struct {
	Color   string // auto, always, never
	ASCII   bool
	Quiet   bool
	Verbose bool

	Project string
}

// New looks at the environment: NO_COLOR, CLICOLOR_FORCE, TERM, the locale and
// the terminal's width.
func New(o Options) *Streams {
	s := &Streams{Out: os.Stdout, Err: os.Stderr, Width: 100, Quiet: o.Quiet, Verbose: o.Verbose, Project: o.Project}
	s.TTY = term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == ""
	s.Log = !term.IsTerminal(int(os.Stderr.Fd()))
	if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && w > 40 {
		s.Width = w
	}
	s.Color = color(o.Color, s.TTY)
	s.ASCII = o.ASCII || !utf8Locale()
	return s
}

func color(flag string, tty bool) bool {
	switch {
	case flag == "always":
		return true
	case flag == "never", os.Getenv("NO_COLOR") != "":
		return false
	case os.Getenv("CLICOLOR_FORCE") != "" && os.Getenv("CLICOLOR_FORCE") != "0":
		return true
	}
	return tty
}

// utf8Locale follows the order that the C library looks in. No locale at all is
// taken as UTF-8: that is how containers and CI runners come.
func utf8Locale() bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(k); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

// The styles. Each goes with a symbol or a word that says the same.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s *Streams) style(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// symbols and their ASCII forms.
var ascii = strings.NewReplacer("✓", "ok", "✗", "FAIL", "–", "-", "↩", "<-", "⏸", "wait", "…", "...", "→", "->", "·", "|", "•", "*", "±", "+-",
	"∅", "(none)", "ε", "(empty)", "×", "x")

// sym is a symbol in a column of its own: ascii columns wide where its word is
// written, else one.
func (s *Streams) sym(t string, ascii int) string {
	if s.ASCII {
		return pad(s.text(t), ascii)
	}
	return t
}

func (s *Streams) text(t string) string {
	if s.ASCII {
		return ascii.Replace(t)
	}
	return t
}

// Printf writes a result.
func (s *Streams) Printf(format string, args ...any) {
	s.print(s.Out, s.safe(fmt.Sprintf(format, args...)))
}

// Verbatim writes a result that is a file: not a byte of it is changed.
func (s *Streams) Verbatim(b []byte) { s.print(s.Out, string(b)) }

// Notef writes something that is not a result.
func (s *Streams) Notef(format string, args ...any) {
	s.print(s.Err, s.safe(fmt.Sprintf(format, args...)))
}

func (s *Streams) print(w io.Writer, t string) {
	if l := s.live.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.erase()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(w, t)
}

// styles are all sequences that we write ourselves.
var styles = regexp.MustCompile(`\x1b\[(?:0|1|2|31|32|33|36)m|\n`)

// safe is the last gate before the terminal: what is neither our own style nor
// a line's end loses its control characters, whoever wrote it.
func (s *Streams) safe(t string) string {
	var b strings.Builder
	at := 0
	for _, m := range styles.FindAllStringIndex(t, -1) {
		b.WriteString(Clean(t[at:m[0]]))
		if own := t[m[0]:m[1]]; own == "\n" || s.Color {
			b.WriteString(own)
		}
		at = m[1]
	}
	return s.text(b.String() + Clean(t[at:]))
}

// shortPath is a store path, as hosts and Nix say it, shortened.
func shortPath(p string) string { return Clean(phases.ShortPath(p)) }

// Clean removes control characters from remote output: it must not move our
// cursor or recolour our words.
func Clean(t string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, ansi.Strip(t))
}

// pad fills t to width columns; longer ones stay as they are.
func pad(t string, width int) string {
	return t + strings.Repeat(" ", max(0, width-ansi.StringWidth(t)))
}

// left fills t to width columns from the left.
func left(t string, width int) string {
	return strings.Repeat(" ", max(0, width-ansi.StringWidth(t))) + t
}

// wrap breaks what follows a lead at blanks, so that it stands in one column
// below itself: a text that somebody has to agree to is never cut, and neither
// names nor paths are ever broken.
func (s *Streams) wrap(lead, t string) string {
	at := ansi.StringWidth(s.text(lead))
	line, col, first := lead, at, true
	for _, word := range strings.Fields(s.text(Clean(t))) {
		switch w := ansi.StringWidth(word); {
		case first:
			line, col = line+word, col+w
		case col+1+w > s.Width:
			line, col = line+"\n"+strings.Repeat(" ", at)+word, at+w
		default:
			line, col = line+" "+word, col+1+w
		}
		first = false
	}
	return strings.TrimRight(line, " ") + "\n"
}

// brief leaves of store paths in a sentence what tells them apart.
func brief(t string) string {
	if !strings.Contains(t, " ") {
		return t
	}
	return storeName.ReplaceAllString(t, "$1")
}

var storeName = regexp.MustCompile(`\b([0-9a-z]{7}…)-[^\s,;()]+`)

// widest is the columns of the widest of list.
func widest(list []string) (columns int) {
	for _, x := range list {
		columns = max(columns, ansi.StringWidth(x))
	}
	return columns
}

// fit cuts t to width columns.
func fit(t string, width int) string {
	if width <= 1 || ansi.StringWidth(t) <= width {
		return t
	}
	return ansi.Truncate(t, width, "…")
}

// Duration shows seconds: one decimal below a minute, `4m 10s` above.
func Duration(sec float64) string {
	if sec < 59.95 {
		return fmt.Sprintf("%.1fs", sec)
	}
	whole := max(int(sec), 60)
	if whole < 3600 {
		return fmt.Sprintf("%dm %02ds", whole/60, whole%60)
	}
	return fmt.Sprintf("%dh %02dm", whole/3600, whole/60%60)
}

// Bytes shows a number of bytes in binary units.
func Bytes(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for i < len(units)-1 && (f >= 1024 || i > 0 && f >= 1023.95) { // else it would be rounded to 1024.0
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%s%d B", sign, n)
	}
	return fmt.Sprintf("%s%.1f %s", sign, f, units[i])
}
