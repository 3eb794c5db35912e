//! A tokenizer's folder: it is loaded, and a little text and a conversation are encoded.

use fp8flow_data::{Conversation, Encoder, Role, Template, Tokenizer, Turn};

use crate::parts::parts;
use crate::{Bound, Room, Target};

/// The library keeps its vocabulary and merges several times, with tables for each; a second copy takes special tokens
/// for tokens. The constant is its caches.
pub(crate) const TARGET: Target =
    Target { name: "tokenizer", read, bound: Bound { factor: 2048, constant: 16 * super::MIB } };

const FIRST: &str = "tokenizer.json";
const FILES: [&str; 4] = [FIRST, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];
const TEXT: &str = "Hello, wörld!  It's 12:30\n\t<|im_end|> \u{1F600} naïve e\u{301}\0";

fn read(room: &Room, input: &[u8]) {
    let folder = room.fill("tokenizer", &FILES, &parts(FIRST, input));
    let Ok(tokenizer) = Tokenizer::open(&folder) else { return };
    if let Ok(ids) = tokenizer.encode(TEXT) {
        let _ = (tokenizer.decode(&ids, true), tokenizer.decode(&ids, false));
    }
    let turns = vec![
        Turn::new(Role::User, TEXT),
        Turn::new(Role::Assistant, "Yes."),
        Turn::new(Role::User, "Why?"),
        Turn::new(Role::Assistant, "So."),
    ];
    let conversation = Conversation { system: Some("Be brief.".into()), turns, ..Conversation::default() };
    for (_, template) in Template::ALL {
        if let Ok(encoder) = Encoder::new(&tokenizer, template) {
            if let Ok(encoded) = encoder.conversation(&conversation) {
                assert_eq!(encoded.ids.len(), encoded.answer.len(), "a token without a label");
            }
            let _ = encoder.document(TEXT);
        }
    }
}
