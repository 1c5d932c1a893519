// Command cosign is cosign's own code, as far as a release needs it: a key
// pair as `cosign generate-key-pair` makes it, and the checks of `cosign
// verify` and `cosign verify-blob` with a public key and without a
// transparency log.
package main

import (
	"context"
	"crypto"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

const usage = `usage: cosign generate-key-pair PREFIX                   write PREFIX.key and PREFIX.pub (COSIGN_PASSWORD)
       cosign verify [-plain-http] KEY IMAGE             check the signature of what a tag or a digest names
       cosign verify-blob -signature FILE KEY FILE       check a detached signature`

func main() {
	log.SetFlags(0)
	log.SetPrefix("cosign: ")
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	plainHTTP := flags.Bool("plain-http", false, "the registry does not speak TLS")
	detached := flags.String("signature", "", "file of the signature")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch rest := flags.Args(); {
	case args[0] == "generate-key-pair" && len(rest) == 1:
		return generate(rest[0])
	case args[0] == "verify" && len(rest) == 2:
		return verify(rest[0], rest[1], *plainHTTP)
	case args[0] == "verify-blob" && len(rest) == 2 && *detached != "":
		return verifyBlob(rest[0], *detached, rest[1])
	}
	return errors.New(usage)
}

func generate(prefix string) error {
	keys, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte(os.Getenv("COSIGN_PASSWORD")), nil })
	if err != nil {
		return err
	}
	if err := os.WriteFile(prefix+".key", keys.PrivateBytes, 0o600); err != nil {
		return err
	}
	return os.WriteFile(prefix+".pub", keys.PublicBytes, 0o644)
}

func verify(key, image string, plainHTTP bool) error {
	options, err := checks(key)
	if err != nil {
		return err
	}
	options.ClaimVerifier = cosign.SimpleClaimVerifier
	var naming []name.Option
	if plainHTTP {
		naming = append(naming, name.Insecure)
	}
	reference, err := name.ParseReference(image, naming...)
	if err != nil {
		return err
	}
	signatures, _, err := cosign.VerifyImageSignatures(context.Background(), reference, options)
	if err != nil {
		return err
	}
	for _, signature := range signatures {
		payload, err := signature.Payload()
		if err != nil {
			return err
		}
		fmt.Println(string(payload))
	}
	return nil
}

func verifyBlob(key, detached, file string) error {
	options, err := checks(key)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	encoded, err := os.ReadFile(detached)
	if err != nil {
		return err
	}
	signed, err := static.NewSignature(content, strings.TrimSpace(string(encoded)))
	if err != nil {
		return err
	}
	_, err = cosign.VerifyBlobSignature(context.Background(), signed, options)
	return err
}

// checks are those of a public key alone: no certificates, no log.
func checks(key string) (*cosign.CheckOpts, error) {
	pem, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &cosign.CheckOpts{SigVerifier: verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true}, nil
}
