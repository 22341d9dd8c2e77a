use base64::{Engine, engine::general_purpose::STANDARD};
use rmcp::model::{ContentBlock, Resource};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Part, image::Source, part::Content};

/// A part of a tool's result as MCP has it. An image that is elsewhere is a link to it.
///
/// # Errors
/// `Internal` for a part that no tool may answer with.
pub(super) fn block(part: Part) -> Result<ContentBlock> {
    match part.content {
        Some(Content::Text(text)) => Ok(ContentBlock::text(text)),
        Some(Content::Image(image)) => match image.source {
            Some(Source::Data(data)) => Ok(ContentBlock::image(STANDARD.encode(data), image.media_type)),
            Some(Source::Url(url)) => Ok(inline(&url).unwrap_or_else(|| ContentBlock::resource_link(Resource::new(url, "image")))),
            None => Err(Error::internal("a tool answered with an image that is not there")),
        },
        _ => Err(Error::internal("a tool answered with something that is neither text nor image")),
    }
}

/// `data:<media type>;base64,<data>`.
fn inline(url: &str) -> Option<ContentBlock> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some(ContentBlock::image(data, media_type))
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::Image;

    use super::*;

    #[test]
    fn an_image_is_sent_along_or_linked() {
        let image = |source: Source| block(Part::image(Image { source: Some(source), media_type: "image/png".into() })).unwrap();
        let data = image(Source::Data(vec![0, 1, 2]));
        assert_eq!((data.as_image().unwrap().data.as_str(), data.as_image().unwrap().mime_type.as_str()), ("AAEC", "image/png"));
        let inline = image(Source::Url("data:image/gif;base64,AAEC".into()));
        assert_eq!((inline.as_image().unwrap().data.as_str(), inline.as_image().unwrap().mime_type.as_str()), ("AAEC", "image/gif"));
        assert_eq!(image(Source::Url("https://x/y.png".into())).as_resource_link().unwrap().uri, "https://x/y.png");
    }
}
