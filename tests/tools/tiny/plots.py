"""The plots: one beat a line, in the syntax of grammar.py."""

OPEN = """\
[Once upon a time, there was|Once there was|Long ago, there was|One day, there was|There once was|There was once] @ {adj} {kind}.
[Once upon a time,|Long ago,|Many years ago,] @ {adj} {kind} lived in {home}.
[Once upon a time, in {home}, there lived|In {home}, there lived] @ {adj} {kind}.
[There was|Once there was] @ {adj} {kind}[. {He} lived in {home}| who lived in {home}|].
[One day|One morning|One sunny day], @ {adj} {kind} [went|walked|ran] to {place}.\
"""

MIDDLE = """\
{He} [loved|liked] to [play|run|sing|laugh|read] [{at}|with {his} friends|all day|in the sun|every day].
{N} [loved|liked] [the sun and the flowers|to look at the stars|to eat {food}|to help others|to play {at}].
Every [day|morning|evening], {N} [went to {place}|played {at}|had {food} with {his} {family}].
{He} had @ [good|best|dear] friend, @ {fadj} {fkind}.
{N} and @ {fadj} {fkind} were [best|good] friends. They [did everything together|played every day|loved to play {at}].
"""

END = """\
[From that day on|After that|From then on], {N} and {fN} [were best friends|played together every day|always helped each other].
[And they lived happily ever after.|They all lived happily ever after.|The end.|It was a [good|wonderful|lovely|great] day.]
{N} went [home|to bed|to sleep] with a [big|happy] smile.
{N} [was|felt] very [happy|glad|proud].
That night, {N} [slept well|had good dreams|told {his} {family} all about it].
"""

PLOTS = {
    "lost": """\
{N} had @ {color} {thing}. [It was {his} favorite thing.|{He} took it everywhere.|{His} {family} gave it to {him}.|{He} loved it very much.]
[One day|One morning|Then one day], the {thing} was [gone|lost|not there]. {N} [was very sad|felt sad|began to cry|did not know what to do].
[{He} looked {hide1}, but it was not there.|{He} looked {hide1}. No {thing}!] [Then {he} looked {hide2}, but it was not there either.|{He} looked {hide2} too, but {he} could not find it.|]
[@ {fadj} {fkind} saw {him}|@ {fadj} {fkind} came by|{His} friend, {fN}, heard {him}][ and asked| and said], "[What is wrong|Why are you sad|What are you looking for], little {kind}?"
"[I lost my {color} {thing}|I can not find my {thing}|My {thing} is gone]," [said {N}|{N} said]. "[I looked everywhere|I want it back|Can you help me]!"
"[Do not worry|Do not cry]," said {fN}. "[I will help you find it|We will look together|Let us look for it together]."
They looked and looked. [At last|Then|In the end], {fN} [saw something {color} {hide3}|looked {hide3} and saw it|found it {hide3}]. "[Here it is|Look, I see it|I found it]!" {fhe} [said|shouted].
{N} [was so happy|jumped with joy|smiled a big smile][| and hugged {fN}]. "[Thank you, little {fkind}|Thank you so much|You are a good friend]!" {he} said.
[{N} kept the {thing} safe after that.|{N} learned that it is good to have a friend who helps.|After that, {N} took good care of {his} {thing}.|]""",
    "share": """\
{N} had a [new|big|beautiful] {color} {toy}. {He} [played with it all day|loved it very much|did not want anyone to touch it].
[One day|One afternoon], {meet} came to {place}. "[Can I play with your {toy}|May I play too|Can we share your {toy}]?" [asked {fN}|{fhe} asked].
"[No|No, it is mine|Go away]!" said {N}. "[I do not want to share|This is my {toy}|You can not have it]." 
{fN} [was sad|felt sad|looked down] and [walked away|went home|sat alone under a tree].
{N} [played alone|went on playing], but it was [not fun|no fun at all|not the same]. {He} [felt bad|felt lonely|saw that {fN} was sad|thought about {fN}].
[{His} {family} said, "It is nice to share. Then you both can have fun."|{N} thought, "I was not kind. I want to be a good friend."|Then {he} thought, "It is more fun to play with a friend."]
So {N} [went to|ran to|found] {fN} and said, "[I am sorry|Sorry that I was not kind], little {fkind}. [We can play together|You can play with my {toy} too|Let us share the {toy}]."
{fN} smiled. "[Thank you|That is very kind|Thank you, little {kind}]," {fhe} said. They [played with the {toy} until the sun went down|took turns with the {toy}|played and laughed all day].
[{N} learned that sharing is fun.|{N} learned that it is good to share.|Now {N} likes to share.|{N} was happy that {he} had shared.]""",
    "fear": """\
But {N} was [afraid|scared] of {fear}. [{He} did not tell anyone.|{His} friends laughed at {him}.|It made {him} feel small.|{He} always ran away and hid {hide1}.]
[One day|One evening|That day], {meet} [wanted to play|asked {N} to come out and play|came to see {N}]. "[I can not|No, I am too scared]," said {N}. "[I am afraid of {fear}|I do not like {fear}]."
{fN} [sat down next to {him}|took {his} hand|was kind and did not laugh]. "[It is okay to be afraid|I was afraid once too|Everyone is afraid of something]," {fhe} said. "{comfort}."
{N} [took a deep breath|closed {his} eyes and counted to three|thought about it for a long time|held on to {fN}]. {He} was [still scared|very scared], but {he} [tried|wanted to be brave|took one small step].
[Nothing bad happened.|It was not so bad!|Soon {he} was not afraid anymore.] {N} [began to smile|opened {his} eyes and laughed|felt strong]. "[I did it|Look at me|I am not scared anymore]!" {he} [said|shouted].
"[I knew you could do it|You are very brave|I am proud of you]," said {fN}.
[From that day on, {N} was not afraid of {fear}.|{N} learned that being brave means to try even when you are scared.|{N} was proud of {self}.]""",
    "rain": """\
[One day|One morning], {N} wanted to [play {at}|go to {place}|fly a kite|have a picnic]. But it [started to rain|was raining hard|rained and rained]. {N} [looked out of the window|sat by the window] and [was sad|felt sad|cried].
"[Why does it have to rain|I do not like the rain|Now I can not play]," {he} said.
{His} {family} [smiled|came to {him}] and said, "[We can have fun inside too|The rain helps the flowers grow|Do not be sad. We can find something to do]."
So they [made {food} together|read a book about @ {baby}|painted a picture|built a tower of boxes|sang songs and danced]. {N} [laughed a lot|forgot about the rain|had so much fun].
[After a while|Later|Then], the rain stopped and the sun came out. There was a big rainbow in the sky! [It was red, yellow, green and blue.|It had many colors.|]
"[Look, a rainbow|It is so pretty|How beautiful]!" said {N}. {He} ran outside and [jumped in the puddles|splashed in the water|danced on the wet grass].
[Then {meet} came and played too.|{meet} came to jump in the puddles with {him}.|{His} feet got wet, but {he} did not mind.]
[{N} learned that a rainy day can be fun too.|Now {N} likes the rain.|It was the best rainy day ever.]""",
    "baby": """\
[One day|One morning|One cold day], {N} was [walking|playing|looking for flowers] {at}. {He} heard a [small|soft|sad] [sound|cry|voice]. [It came from {hide3}|It was close by]. It was a baby {baby}!
The baby {baby} was [cold and hungry|lost|all alone|hurt and scared]. "[Where is my mother|I want my mom|Please help me]," it said.
{N} [felt sorry for it|wanted to help]. "[Do not be afraid|Do not cry, little one]," {he} said. "[I will help you|I will take care of you|We will find your mother]."
{He} [gave it some {food}|gave it water and {food}|put it in a warm box|held it close to keep it warm]. [Soon the baby {baby} felt better.|The baby {baby} stopped crying.|]
Then {N} [asked {meet} for help|met @ {fadj} {fkind}]. "[Have you seen a mother {baby}|Do you know where its mother is]?" {he} asked. "Yes," said {fN}. "[I saw her {at2}|She is {at2}, and she is very worried|Come with me]."
They [went|walked|ran] to {place2}. [There was the mother {baby}!|And there they saw the mother {baby}.] The baby {baby} [ran to its mother|was so happy to see her|jumped for joy].
"[Thank you for helping my baby|You are so kind|Thank you, little {kind}]," said the mother {baby}.
[{N} was happy that {he} had helped.|{N} felt warm inside.|They often came to visit {N} after that.|{N} learned that small help can mean a lot.]""",
    "build": """\
[One day|One sunny day|One morning], {N} wanted to [make|build] a [big|very big] {build}. {He} [found|got] some {stuff} and [started to work|began to build|worked hard all morning].
[The {build} got bigger and bigger.|"It will be the best {build} in the world!" {he} said.|{He} sang a happy song while {he} worked.|]
But then [the wind blew and|a big dog ran by and|{N} fell down and|something went wrong and] the {build} [fell down|broke]. "Oh no!" [cried|said] {N}. {He} was very [sad|angry|upset]. {He} wanted to [give up|stop|go home].
{meet} [saw it|came over] and said, "[Do not give up|It is okay. We can try again|I can help you]. [Two can do more than one|We can make it stronger|Let us do it together]!"
So {N} and {fN} [tried again|started again|worked together]. {N} [brought more {stuff}|held the {stuff}], and {fN} [put it in the right place|made it strong|helped {him}]. [They worked slowly and with care.|It took a long time.|They did not stop.]
[At last|In the end|When the sun went down], the {build} was [done|ready|finished]. It was [big and strong|even better than before|the best {build} they had ever seen].
"[We did it|Look what we made|It is so beautiful]!" said {N}. [{fN} clapped and laughed.|They danced around it.|{His} {family} came to see it and was very proud.]
[{N} learned to never give up.|{N} learned that it is good to try again.|{N} was glad that {he} did not give up.|{N} learned that friends make hard work easy.]""",
    "truth": """\
{His} {family} had a beautiful {color} {fragile}. "[Please do not touch it|Be careful with it|Do not play near the {fragile}]," {famhe} always said.
But [one day|one afternoon] {N} [was playing with a ball|was running in the house|wanted to see the {fragile} up close]. [Crash!|Oh no!] The {fragile} fell [down|on the floor] and broke.
{N} was [scared|afraid|very worried]. {He} [hid the pieces {hide1}|ran away and hid {hide2}|did not know what to do].
[Later|Soon], {his} {family} [came home|came into the room] and asked, "[Who broke the {fragile}|What happened to my {fragile}|Where is my {fragile}]?" {N} [looked at the floor|did not want to say it|felt bad inside].
[At first, {he} wanted to say that {meet} did it, but that was not true.|{He} knew that it was wrong to lie.|{He} thought for a while.]
Then {he} said, "[I did it|It was me|I broke it]. I am [so|very] sorry." {His} {family} [was quiet for a moment|looked at {him}|gave {him} a hug]. "[Thank you for telling the truth|I am glad that you told me the truth|@ {fragile} can be fixed. It is good that you told me]."
[Together they cleaned the floor.|They fixed the {fragile} together.|{N} helped to clean up.] {N} felt [much better|better|light and happy again].
[{N} learned to always tell the truth.|{N} learned that it is good to tell the truth.|After that, {N} was more careful.]""",
    "lonely": """\
But {N} [had no friends|was lonely|was new in town and did not know anyone]. [{He} played alone every day.|{He} wanted a friend very much.|"I wish I had a friend," {he} said.]
[One day|One morning], {N} went to {place}. {He} saw @ {fadj} {fkind} [there|who was playing with @ {toy}|sitting alone]. {N} wanted to say hello, but {he} was [shy|a little scared|not sure what to say].
[Then {he} took a deep breath and said|At last {he} said], "Hello. I am @ {kind}. [Who are you|Do you live here|Are you new here]?"
"[I am @ {fkind}|Hello, little {kind}]," said the {fkind}. "[Do you want to play with me|I have no one to play with|I was hoping to find a friend]."
{N} [smiled|was so happy|could not believe it]. "[Yes, let us play|Yes, please|I would love to]!" {he} said. They [played with the {toy}|ran and jumped|sang songs|looked for {food}|played hide and seek] [{at}|all day|until it was dark].
[When it was time to go home, {fN} asked, "Can we play again tomorrow?" "Yes!" said {N}.|They shared some {food} and told funny stories.|]
[Now {N} was not lonely anymore.|From that day on, {N} had a friend.|{N} and {fN} became best friends.|{N} learned that a friend can start with one hello.]""",
    "gift": """\
[One day|One morning], it was the birthday of {his} best friend, @ {fadj} {fkind}. {N} wanted to give {fhim} [something special|a nice gift|the best gift].
But {N} had no [money|gift]. "[What can I give {fhim}|What should I do]?" {he} thought. {He} [looked {hide1} and {hide2}|walked to {place}|asked {his} {family}].
[Then {he} had an idea.|"You can make something with your own hands," said {his} {family}.|{His} {family} said, "The best gift comes from the heart."] So {N} made @ {color} {gift}. [It took all day.|{He} worked very hard.|It was not perfect, but it was made with love.]
[That evening|The next day|Then], {N} went to the party. [There were balloons and cake.|All the friends were there.|There was music and good food.] {N} was [worried|shy]. "What if {fhe} does not like it?" {he} thought.
{fN} opened the box and saw the {gift}. {fHis} eyes got big. "[Did you make this for me|You made this]?" {fhe} asked. "[It is the best gift ever|I love it|It is so beautiful]!"
{fN} [gave {N} a big hug|hugged {him}|jumped up and down]. [Then they all ate cake and danced.|They all sang a happy song.|They played until it was late.]
[{N} learned that a gift from the heart is the best gift.|{N} was so happy that {fN} liked it.|It was the best birthday ever.]""",
    "race": """\
[One day|One sunny day], there was a big race {at}. {N} wanted to [win|be the first|win the prize]. {meet} [wanted to win too|was in the race too].
"[I am very fast|No one is as fast as me|I will win this race]," said {N}. "[Ready|One, two, three], go!" [They all ran as fast as they could.|The race began.] {N} was [in front|first|the fastest].
Then {N} heard a cry. {fN} had [fallen down|hurt {fhis} leg|slipped in the mud]. {N} [stopped|looked back]. {He} could [win the race|keep running], or {he} could [help {fN}|help {fhis} friend].
[{N} did not think for long.|{N} knew what to do.|] {He} ran back. "[Are you okay|Are you hurt|Take my hand], little {fkind}?" {he} asked. {He} helped {fhim} [up|to stand up]. [They walked to the end together, slowly, step by step.|Together they went on, hand in hand.]
They [were last|did not win], but everyone [clapped for them|cheered]. {N} got [@ {color} star|a big hug|a prize] for being [kind|a good friend].
"[Thank you for helping me|You are the real winner|You did not have to stop]," said {fN}. {N} smiled. "[You are more important than a race|Friends come first|A friend is better than a prize]," {he} said.
[{N} learned that being kind is better than winning.|They were both very happy.|It was the best race ever.]""",
    "skill": """\
{N} wanted to learn how to {skill}. {He} [saw {meet} {skilling} and thought it looked fun|tried, but {he} could not do it|tried once, but it was too hard].
"[I can not do it|It is too hard|I will never learn it]," [said|cried] {N}. {He} [was sad|sat down and cried|wanted to stop].
{fN} said, "[I could not {skill} at first either|It takes time to learn|You have to try many times]. [I will show you|I can teach you|Let me help you]."
So every day, {N} and {fN} [practiced|tried] together {at}. [On the first day|At first], it was [very hard|hard]. [On the second day|Then], it was a little better. [{N} made many mistakes, but {he} did not stop.|{fN} was kind and did not laugh.|]
[One day|One morning|At last], {N} tried again. {He} {skilled}[ and {skilled}|][ very well| all by {self}|]! "[Look at me|I can {skill}|I did it]!" {he} shouted.
[{fN} clapped.|Everyone clapped.|{His} {family} came to see it and was so proud.] "[You did it|I knew you could do it|Well done], little {kind}!" said {fN}.
[{N} learned that if you try and try, you can do it.|{N} was so proud of {self}.|Now {N} loves {skilling}.|{N} learned that it is good to practice.]""",
    "hungry": """\
[One day|One afternoon], {N} was very hungry. {He} [looked for something to eat|wanted something sweet|went to {place} to find food]. {He} saw @ [big|tall|old] tree. It had one [big|sweet|red] {fruit} on it.
{N} jumped, but {he} could not reach the {fruit}. {He} jumped again. [It was too high.|No, it was still too high.] "[What can I do|How can I get it]?" {he} [asked|thought].
[Then {meet} came by.|@ {fadj} {fkind} saw {him}.] "I am hungry too," said {fN}. "[If you stand on my back, you can reach it|Let us work together|I can help you, and then we can share]."
So {N} [climbed on {fN}'s back|stood on {fN}'s back] and [reached up high|took the {fruit}]. "[I got it|We did it]!" {he} [said|shouted].
{N} looked at the {fruit}. [It looked so good.|It was big and sweet.] {He} [wanted to eat it all, but then {he} looked at {fN}|remembered that {fN} was hungry too]. {He} [cut|broke] the {fruit} in two. "[One for you and one for me|Half for you and half for me]," {he} said.
They sat under the tree and ate. [It was the best {fruit} they had ever had.|It was so sweet!|They laughed because they had juice on their faces.]
[{N} learned that food tastes better when you share it.|They were not hungry anymore.|From that day on, they looked for food together.]""",
    "home": """\
[One day|One afternoon], {N} went for a walk {at}. {He} [saw @ {color} butterfly|saw a pretty {color} flower|heard a nice song] and [followed it|wanted to see more]. {He} walked and walked.
[Soon|Then] it got dark. {N} looked around. {He} did not know where {he} was. {He} was lost! "[I want to go home|Where is my house|Help me, please]!" {he} [cried|called].
[Then {he} saw an old {helper}.|An old {helper} heard {him}.|{He} met an old {helper} {at2}.] "[Why are you crying, little {kind}|Are you lost, little {kind}|What is wrong, little {kind}]?" asked the {helper}.
"[I can not find my home|I am lost|I walked too far]," said {N}. "[Do not be afraid|Do not worry]," said the {helper}. "[I know the way|I can show you the way|Follow me and I will take you home]."
They [walked past {place2}|went over the hill|crossed the little bridge] and [down a long road|up a long road|under the bright stars]. The moon [was big and white|showed them the way]. [At last|Then] {N} saw {his} house. {His} {family} was [waiting at the door|standing by the window|looking for {him}].
"[I was so worried|There you are|I am so glad you are home]!" said {his} {family} and gave {him} a [big|warm] hug. {N} said thank you to the {helper}.
[{N} learned not to walk too far alone.|After that, {N} always told {his} {family} where {he} went.|{N} was safe and warm in {his} bed that night.]""",
    "magic": """\
[One day|One night], {N} found a [small|magic|shiny] {color} stone {at}. [It was very pretty.|It was warm and bright.|] When {he} picked it up, [a voice said|it spoke and said], "[You can make one wish|I am a magic stone. Make a wish|I will give you one wish]."
{N} thought for a long time. {He} could wish for [a house full of toys|a mountain of {food}|a new {toy}|a bag of gold]. "[What do I want most|What should I wish for]?" {he} asked.
Then {N} saw {meet}. {fN} was [sick|sad|cold and hungry|crying] and had [no home|nothing to eat|no one to help {fhim}]. {N} felt [sad|sorry] for {fhim}.
[{N} held the stone|{N} closed {his} eyes] and said, "I wish that {fN} [would be happy|would be well|had a warm home and good food]." The stone [began to shine|turned bright {color}|shone like a star], and the wish came true!
{fN} [smiled|jumped up|could not believe it]. "[Did you do this for me|You used your wish for me]?" {fhe} asked. "Yes," said {N}. "[You are my friend|I want you to be happy|A happy friend is the best wish]."
[The stone was just a stone now, but {N} did not mind.|The magic was gone, but {N} had a friend.|{N} kept the stone to remember that day.]
[{N} learned that it feels good to help others.|{N} learned that being kind is like magic.|They were both very happy.]""",
    "bed": """\
[One night|It was late, and], {N} could not sleep. {He} [turned to the left and to the right|counted sheep|closed {his} eyes, but it did not help]. [The moon was bright.|The wind was loud.|The house was very quiet.]
"[I can not sleep|I am not tired]," {N} said to {his} {family}. "[Can you tell me a story|Will you sing me a song|What can I do]?"
{His} {family} sat down on the bed. "[I will tell you about @ {fadj} {fkind}|Close your eyes and think of {place}|Think of something nice, like {food} and warm milk]," {famhe} said.
{N} [listened|closed {his} eyes|thought about it]. [{He} thought about the stars and the moon.|{He} thought about all the fun things {he} did that day.|{He} thought about {his} friend, little {fkind}.] {He} [felt warm and safe|began to feel sleepy|smiled].
"[Good night, little {kind}|Sleep well, little {kind}|Sweet dreams, little {kind}]," said {his} {family} and [turned off the light|gave {him} a kiss|gave {him} a hug].
[Soon {N} was asleep.|In a moment, {N} was fast asleep.] {He} had a dream about [@ {color} {baby} that could fly|a boat on the sea|a big {color} balloon|a land made of {food}].
[In the morning, {N} told {his} {family} about the dream.|In the morning, the sun came up, and {N} was ready to play.|It was a good night.]""",
    "seed": """\
[One day|In the spring], {N} found a little seed {at}. "[What will it be|What is this]?" {he} asked. {His} {family} said, "[It is @ {seed} seed|It can grow into @ {seed}]. [Put it in the ground and give it water|You must take care of it]."
So {N} [made a hole in the ground|found a sunny place] and put the seed in. {He} gave it water every day. [But nothing happened.|{He} waited and waited.|] "[Why does it not grow|Is it asleep]?" {he} asked.
"[You have to wait|Good things take time|Do not give up]," said {meet}. [So {N} waited some more.|The sun was warm, and the rain fell.] {N} [sang songs to the seed|sat next to it every day|still gave it water].
[One morning|Then one day], {N} saw something small and green. "[Look|Come and see], little {fkind}! [It is growing|My seed is growing]!" {he} shouted. Every day it grew [bigger and bigger|a little more].
[At last|In the summer|After a long time], there was a [big|beautiful|wonderful] {seed}. {N} was so [proud|happy]. [All {his} friends came to see it.|{His} {family} said, "You took good care of it."|{He} showed it to everyone.]
[{N} learned that good things take time.|{N} learned to wait and not give up.|Then {N} found a new seed and started again.]""",
    "noise": """\
[One night|One evening], {N} heard a strange noise. [Bump, bump, bump!|Tap, tap, tap!|Knock, knock!] It came from {hide1}. {N} [sat up in bed|was scared|hid {hide2}]. "[What is that|Who is there]?" {he} [said|asked] in a small voice.
[No one said a word.|The noise stopped. Then it came again.|It got louder and louder.] {N} thought it was a [monster|ghost|big monster with {color} eyes].
{He} [called {his} {family}|woke up {meet}|took a lamp] and said, "[There is a monster in the house|I heard something|Let us go and look]!" [Very slowly, they went to look.|Step by step, {he} went closer.] {His} heart beat fast.
[Then {he} looked {hide1}.|{N} turned on the light.] It was not a monster. It was only a [little|small|tiny] {baby}! It [wanted some {food}|was looking for its mother|was more scared than {N}|was playing with @ {thing}].
{N} [began to laugh|laughed and laughed]. "[You are not a monster|You scared me, little {baby}|Hello, little {baby}]," {he} said. {He} gave it some {food}, and the {baby} [was happy|ate it all|went to sleep].
[{N} was not afraid anymore.|{N} learned that things are not so scary when you turn on the light.|After that, the {baby} came to visit {him} every night.]""",
    "stuck": """\
[One day|One morning], {N} was [playing|walking] {at}. {He} heard someone shout, "Help! Help!" It was {meet}. {fHe} was stuck in [the mud|a hole|a bush|a net]!
"[Hold on|Do not worry|Wait], little {fkind}! I will [help you|pull you out|get you out]," said {N}. {He} [pulled and pulled|took {fhis} hand and pulled|pulled as hard as {he} could]. But {fN} [did not move|was still stuck|was too heavy].
[{N} ran to get help.|"I need more help," said {N}.|"I am not strong enough," said {N}.] [Soon|Then] @ {helper} came. [The {helper} was big and strong.|"I will help too," said the {helper}.] [They all pulled together.|"One, two, three, pull!" they shouted.]
Pop! {fN} [was free|came out|flew out and fell on the grass]. {fHe} was [wet and dirty|tired], but [{fhe} was not hurt|safe]. 
"[Thank you for saving me|Thank you, my friends|You saved me]!" said {fN}. [Then they all laughed.|{fHe} gave {N} a big hug.|They had some {food} to celebrate.]
[{N} learned that together we are strong.|{N} was glad that {he} had asked for help.|From that day on, {fN} was more careful.]""",
    "help": """\
[One day|One cold day], {N} saw an old {helper} {at}. The old {helper} had a [big|heavy] bag [of {food}|] and [walked very slowly|was very tired|could not carry it]. 
[Many people walked by, but no one helped.|{N} was on {his} way to play with {meet}.|{N} wanted to play, but {he} stopped.] {N} [went to the old {helper}|ran up] and said, "[Can I help you?|May I carry your bag?|Let me help you.]"
"[Oh, thank you|You are very kind|That would be nice], little {kind}," said the old {helper}. {N} took the bag. It was very heavy, but {N} [was strong|did not give up|did not stop]. They walked [up the hill|down the road|over the bridge] and talked [about many things|about the old days|about {food} and flowers].
When they came to the house, the old {helper} [gave {N} some {food}|gave {him} @ {color} {thing}|told {him} a wonderful story]. "[This is for you, because you have a good heart|Thank you for your help]," said the old {helper}.
{N} [smiled|was very happy|said thank you] and ran [home|away with a happy heart]. [{He} shared it with {meet}.|{He} told {meet} about it.|{He} told {his} {family} about it.] "[It feels good to help|I am glad I helped]," {he} said.
[{N} learned that it is good to help others.|After that, {N} went to see the old {helper} every week.|They became good friends.]""",
}

