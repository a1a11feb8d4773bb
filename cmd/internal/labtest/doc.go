// Package labtest lets tests use the hosts of a lab that is up.
//
// Such tests run inside it: lab exec -- go test ./... . Elsewhere they skip
// with one line, unless DEPLOYER_NO_SKIP=1 makes that a failure.
package labtest
