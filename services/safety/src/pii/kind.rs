//! The kinds of things that are found: their codes, and what they are called.

use serde::Deserialize;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $code:literal $name:literal $secret:literal,)*) => {
        /// In a manifest by its name with dashes: `credit-card`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum Kind { $($(#[$doc])* $kind,)* }

        pub(super) const ALL: [Kind; [$($code),*].len()] = [$(Kind::$kind,)*];

        impl Kind {
            /// The category's code, and what stands between brackets in place of what was found.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            /// For people.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Who has it can act with it.
            pub(crate) fn is_secret(self) -> bool {
                match self { $(Self::$kind => $secret,)* }
            }
        }
    };
}

kinds! {
    Email "EMAIL" "e-mail address" false,
    Phone "PHONE" "phone number" false,
    CreditCard "CREDIT_CARD" "payment card number (checksum and issuer are right)" true,
    Iban "IBAN" "bank account number (checksum is right)" true,
    UsSsn "US_SSN" "US social security number" true,
    UkNino "UK_NINO" "UK national insurance number" true,
    DeTaxId "DE_TAX_ID" "German tax identification number (checksum is right)" true,
    IpAddress "IP_ADDRESS" "IP address" false,
    MacAddress "MAC_ADDRESS" "hardware address" false,
    DateOfBirth "DATE_OF_BIRTH" "date of birth" false,
    Passport "PASSPORT" "passport number" true,
    CryptoAddress "CRYPTO_ADDRESS" "address of a crypto currency" false,
    AwsKey "AWS_KEY" "AWS access key" true,
    GithubToken "GITHUB_TOKEN" "GitHub token" true,
    GitlabToken "GITLAB_TOKEN" "GitLab token" true,
    SlackToken "SLACK_TOKEN" "Slack token or webhook" true,
    StripeKey "STRIPE_KEY" "Stripe key" true,
    OpenaiKey "OPENAI_KEY" "key of a model provider" true,
    GoogleKey "GOOGLE_KEY" "Google key or token" true,
    ServiceToken "SERVICE_TOKEN" "token of a service, known by its shape" true,
    PrivateKey "PRIVATE_KEY" "private key" true,
    Jwt "JWT" "JSON Web Token (its header can be read)" true,
    BasicAuth "BASIC_AUTH" "user name and password of a URL or a header" true,
    Password "PASSWORD" "password or key in an assignment" true,
    Canary "CANARY" "canary string of the configuration" true,
}
